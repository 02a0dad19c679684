"""What ONNX Runtime hides on a CPU: an FP16 graph that overflows on a GPU does not pass."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from evovit_deploy import ExportOptions, ParityError, cli, export_onnx
from evovit_deploy.engines.ort.session import session
from evovit_deploy.export.strict import StrictRun
from evovit_deploy.images.probes import HARD, probe_images
from evovit_deploy.models.options import ModelOptions

FP16 = ExportOptions(ModelOptions("fp16"))

pytestmark = pytest.mark.usefixtures("weights_into_one_export")


def changed(checkpoint, **factors):
    """The checkpoint with some tensors multiplied; ``__`` in a name is a dot."""
    state = {key: tensor.clone() for key, tensor in checkpoint.state.items()}
    for name, factor in factors.items():
        state[name.replace("__", ".")] *= factor
    return dataclasses.replace(checkpoint, state=state)


@pytest.fixture
def overflowing(tiny):
    """The hidden layer of block 1 beyond FP16, and fc2 after it as much smaller."""
    return changed(tiny, blocks__1__mlp__fc1__weight=2.0**20, blocks__1__mlp__fc2__weight=2.0**-20)


def test_what_the_cpu_provider_hides_is_seen():
    """100 x 1000 x 0.001 in FP16: the product in between is infinite on a GPU, and not rounded on a CPU."""
    half, make = onnx.TensorProto.FLOAT16, onnx.helper
    factors = [make.make_tensor(name, half, [], [value]) for name, value in (("large", 1000.0), ("small", 0.001))]
    nodes = [make.make_node("Mul", ["images", "large"], ["between"], "first")]
    nodes.append(make.make_node("Mul", ["between", "small"], ["logits"], "second"))
    ends = [make.make_tensor_value_info(name, half, [1, 1]) for name in ("images", "logits")]
    graph = make.make_graph(nodes, "graph", ends[:1], ends[1:], factors)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
    image = np.array([[100]], np.float16)
    assert session(model.SerializeToString(), "cpu", 1).run(None, {"images": image})[0] == pytest.approx(100, rel=1e-2)
    run = StrictRun(model)
    assert np.isinf(run(image.astype(np.float32))["logits"]).all()
    assert run.overflows(["hundred"]) == ("first: 1e+05, hundred",)


def test_an_overflow_does_not_pass(overflowing, tmp_path):
    with pytest.raises(ParityError, match=r"Overflow begins at blocks\.1/fc1/MatMul: "):
        export_onnx(overflowing, tmp_path / "model.onnx", FP16)
    assert not list(tmp_path.iterdir())


def test_verify_sees_it_too(overflowing, tmp_path, capsys, monkeypatch):
    options = dataclasses.replace(FP16, prove=False)
    half = export_onnx(overflowing, tmp_path / "half.onnx", options).path
    whole = export_onnx(overflowing, tmp_path / "whole.onnx", dataclasses.replace(options, model=ModelOptions())).path
    monkeypatch.setattr("sys.argv", ["evovit", "verify", str(whole), str(half)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 3
    assert "not finite" in capsys.readouterr().err


def test_a_model_that_overflows_on_white_only_does_not_pass(tiny, tmp_path):
    """One channel of the patch embedding sums up the brightness of a patch, and a pure white one is just beyond FP16."""
    state = {key: tensor.clone() for key, tensor in tiny.state.items()}
    white = sum((1 - mean) / std for mean, std in zip(tiny.recipe.transform.mean, tiny.recipe.transform.std))
    state["patch_embed.proj.weight"][0] = 66000 / (256 * white)
    bright = dataclasses.replace(tiny, state=state)
    probes = probe_images(tiny.recipe)
    dim = dataclasses.replace(probes, pixels=(probes.pixels * 0.9).astype(np.uint8))
    images = dim.prepared(tiny.recipe.transform, "float32")
    assert export_onnx(bright, tmp_path / "dim.onnx", FP16, images=images).parity.overflows == ()
    with pytest.raises(ParityError, match=r"patch_embed/Conv: 6\.6e\+04, white"):
        export_onnx(bright, tmp_path / "model.onnx", FP16)


def test_a_weight_beyond_fp16_is_named(tiny, tmp_path):
    with pytest.raises(ParityError, match=r"blocks\.2/fc1/MatMul: a weight is beyond it"):
        export_onnx(changed(tiny, blocks__2__mlp__fc1__weight=2.0**23), tmp_path / "model.onnx", FP16)


def test_a_healthy_model_has_nothing_beyond_fp16(tiny, pair, tmp_path):
    for checkpoint, batch in ((tiny, None), (pair, 2)):
        result = export_onnx(checkpoint, tmp_path / "model.onnx", dataclasses.replace(FP16, batch=batch))
        gate = next(gate for gate in result.parity.gates if gate.name == "overflow")
        assert (gate.found, gate.passed, result.parity.overflows) == (0, True, ())
    run = StrictRun(onnx.load(result.path), 2)
    run(np.zeros((3, 3, 64, 64), np.float32))
    assert 0 < next(iter(run.near.values())) < 0.01


def test_the_hard_images_are_hard(tiny):
    """The large token is the largest that the patch embedding gives to any image of black and white pixels."""
    kernels = tiny.state["patch_embed.proj.weight"].numpy()
    probes = probe_images(tiny.recipe, kernels=kernels)
    assert probes.names[-len(HARD) :] == HARD
    images = probes.prepared(tiny.recipe.transform, "float32")
    patches = images.reshape(len(images), 3, 4, 16, 4, 16).transpose(0, 2, 4, 1, 3, 5).reshape(len(images), 16, -1)
    answers = np.abs(patches @ kernels.reshape(len(kernels), -1).T).max((1, 2))
    assert answers.argmax() == len(images) - 1
