"""Features in ONNX Runtime: timm's at keep ratio 1, by hand below it; the proof holds every one of them."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from evovit_deploy import Engine, ParityError
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx, verify
from evovit_deploy.export.features import compare_features
from evovit_deploy.export.graph import drop_outputs
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution
from tests.models.test_features import close
from tests.timm_models import checkpoint_of, evolved, images_for, timm_model

UNEVEN = Evolution((1.0, 0.7, 0.4), (1.0, 0.8, 0.5), stage_starts=(1, 2))
ONCE = Evolution((1.0, 0.5), (1.0, 0.5), stage_starts=(1,))
REGISTERS = "vit_small_patch14_reg4_dinov2"
NAMES = ("embedding", "class_token", "patch_tokens", "block_0", "block_2", "norm_block_1")


@pytest.fixture(scope="module")
def by_hand():
    """The features of the reference by name, and the images."""
    model = timm_model(REGISTERS, depth=3)
    images, by_image = images_for(model), []
    evolved(model, images, UNEVEN, by_image)
    states = torch.stack(by_image, 1)
    final = model.norm(states[-1])
    values = (
        model.forward_head(final, pre_logits=True), final[:, 0], final[:, 5:],
        states[0][:, 5:], states[2][:, 5:], model.norm(states[1])[:, 5:],
    )  # fmt: skip
    return images.numpy(), dict(zip(NAMES, values))


@pytest.fixture(scope="module")
def exported(by_hand, tmp_path_factory):
    """The export by `sort`, whose tokens have to be put back, and its proof."""
    path = tmp_path_factory.mktemp("features") / "m.onnx"
    options = ExportOptions(ModelOptions(selection="sort", outputs=(*NAMES, "kept")))
    return export_onnx(checkpoint_of(REGISTERS, UNEVEN), path, options, images=by_hand[0])


def assert_as_by_hand(path, by_hand):
    images, expected = by_hand
    with Engine.open(path, provider="cpu") as engine:
        assert engine.spec.outputs == (*NAMES, "kept_1", "kept_2")
        assert (engine.spec.scores, engine.spec.num_classes) == (None, 0)
        for count in (1, 3):
            got = engine(images[:count])
            for name, value in expected.items():
                assert got[name].dtype == np.float32
                assert close(torch.from_numpy(got[name]), value[:count]), name


def test_tokens_are_at_their_places(by_hand, exported):
    assert exported.parity.passed
    assert exported.parity.compared is None, "nobody asked for class scores"
    assert tuple(exported.parity.features) == NAMES
    assert_as_by_hand(exported.path, by_hand)


def test_a_static_batch_without_folding(by_hand, tmp_path):
    options = ExportOptions(ModelOptions(selection="topk", outputs=(*NAMES, "kept"), fold=False), 2, prove=False)
    assert_as_by_hand(export_onnx(checkpoint_of(REGISTERS, UNEVEN), tmp_path / "m.onnx", options).path, by_hand)


def test_fp16_is_proven_by_direction_too(by_hand, tmp_path):
    images, expected = by_hand
    options = ExportOptions(ModelOptions("fp16", "float32", outputs=NAMES))
    report = export_onnx(checkpoint_of(REGISTERS, UNEVEN), tmp_path / "m.onnx", options, images=images).parity
    assert report is not None
    assert {gate.name for gate in report.gates} >= {f"{name}_{what}" for name in NAMES for what in ("error", "cosine")}
    assert min(match.cosine for match in report.features.values()) >= 0.999
    with Engine.open(tmp_path / "m.onnx", provider="cpu") as engine:
        got = engine(images)
    for name, value in expected.items():
        assert np.abs(got[name] - value.numpy()).max() <= 0.05 * max(1.0, float(value.abs().max()))


@pytest.mark.parametrize("kind", ["twin", "stock"])
def test_the_vanilla_model_is_proven_against_timms_own_features(kind, tmp_path):
    from evovit_deploy.checkpoint import random_checkpoint, timm_recipe

    checkpoint = random_checkpoint(timm_recipe("test_vit", image_size=48))
    options = ExportOptions(ModelOptions(outputs=("embedding", "patch_tokens", "block_2", "norm_block_2")))
    result = export_baseline(checkpoint.recipe, tmp_path / "m.onnx", options, kind=kind, weights=checkpoint)
    assert result.parity is not None
    assert list(result.parity.features) == list(options.model.outputs)
    assert result.parity.passed


def test_default_of_a_model_without_a_head(tmp_path):
    result = export_onnx(checkpoint_of("vit_small_patch14_dinov2 headless", ONCE), tmp_path / "m.onnx")
    assert result.manifest["outputs"] == ["embedding"]
    document = json.loads(result.json_path.read_text())
    assert document["parity"]["features"]["embedding"]["error"] < 1e-4
    shape = onnx.load(result.path).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value or dim.dim_param for dim in shape] == ["batch", 64]


def test_a_wrong_token_fails_the_proof(by_hand, tmp_path, monkeypatch):
    """Tokens left in the order of their scores are the same numbers at the wrong places."""
    from evovit_deploy.models.vit.outputs import Features

    def as_it_is(self, origin):
        return torch.arange(origin.shape[1]).expand_as(origin)

    monkeypatch.setattr(Features, "order_of", as_it_is)
    options = ExportOptions(ModelOptions(selection="sort", outputs=("patch_tokens",)))
    with pytest.raises(ParityError, match="largest error of patch_tokens"):
        export_onnx(checkpoint_of(REGISTERS, ONCE), tmp_path / "m.onnx", options, images=by_hand[0])
    assert not list(tmp_path.iterdir())


def test_verify_compares_what_both_give_and_finds_a_fault(by_hand, exported, tmp_path):
    whole = onnx.load(exported.path)
    entry = next(entry for entry in whole.metadata_props if entry.key == "evovit")
    entry.value = json.dumps({**json.loads(entry.value), "outputs": ["embedding"]})
    part = drop_outputs(whole, ["embedding"])
    onnx.save(part, tmp_path / "part.onnx")
    weight = next(tensor for tensor in part.graph.initializer if tensor.name.endswith("norm.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.1), weight.name))
    onnx.save(part, tmp_path / "broken.onnx")
    paths = (exported.path, tmp_path / "part.onnx", tmp_path / "broken.onnx")
    reference, same, other = (Engine.open(path, provider="cpu") for path in paths)
    report = verify(reference, same, by_hand[0])
    assert (report.passed, list(report.features), report.compared) == (True, ["embedding"], None)
    found = verify(reference, other, by_hand[0])
    assert not found.passed
    assert "embedding" in found.failure


def test_a_small_vector_is_held_by_its_direction():
    a = np.zeros((1, 2, 3), np.float32)
    a[0, 0], a[0, 1] = (100, 0, 0), (0.01, 0, 0)
    b = a.copy()
    b[0, 1] = (0, 0.01, 0)
    found = compare_features({"patch_tokens": a}, {"patch_tokens": b}, ("x",))["patch_tokens"]
    assert found.error <= 1e-4
    assert found.cosine == 0
    assert dataclasses.asdict(found)["worst"] == "x"
