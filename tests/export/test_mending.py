"""`--islands`: the least that lets a model run in FP16, and nothing for one that does already."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from evovit_deploy import ExportOptions, ModelOptions, export_baseline, export_onnx, random_checkpoint
from evovit_deploy.cli import app
from evovit_deploy.errors import InputError
from evovit_deploy.export.islands import candidates, named
from evovit_deploy.export.scaling import rescale
from evovit_deploy.export.search import minimise
from evovit_deploy.export.strict import StrictRun
from evovit_deploy.manifest import check
from evovit_deploy.models.build import build_model
from evovit_deploy.models.families import family_of
from evovit_deploy.models.vit.evit_recipe import Fusion
from evovit_deploy.models.vit.tome_recipe import Merging
from tests.conftest import DIGITS
from tests.diagnose.faults import ALL, healthy

from .conftest import TINY

FAULTS = {str(fault): fault for fault in ALL}
EVIT = dataclasses.replace(TINY, name="evit_tiny_test", family="evit", evolution=Fusion((1, 0.6, 0.6, 1), (1, 2)))
AUTO = ExportOptions(ModelOptions("fp16"), islands="auto")

pytestmark = pytest.mark.usefixtures("weights_into_one_export")


def nodes_of(path) -> list[tuple[str, str]]:
    return [(node.op_type, node.name) for node in onnx.load(path).graph.node]


def test_a_sound_model_is_exported_as_ever(tmp_path):
    plain = export_onnx(healthy("deit"), tmp_path / "plain.onnx", dataclasses.replace(AUTO, islands=()))
    auto = export_onnx(healthy("deit"), tmp_path / "auto.onnx", AUTO)
    assert nodes_of(auto.path) == nodes_of(plain.path)
    assert (auto.manifest["islands"], auto.manifest["scales"]) == ([], {})
    assert "islands" not in plain.manifest


def test_an_overflow_becomes_an_island(tmp_path):
    result = export_onnx(FAULTS["deit-mlp-1"].checkpoint(), tmp_path / "model.onnx", AUTO)
    assert result.manifest["islands"] == [
        f"blocks.1/{name}" for name in ("fc1/MatMul", "fc1/Add", "act/Gelu", "fc2/MatMul")
    ]
    assert (result.manifest["scales"], result.parity.overflows, result.parity.top1) == ({}, (), 1)
    cost = json.loads(result.json_path.read_text())["islands_cost"]
    assert cost["batch"] == 1
    assert min(cost["ms"], cost["ms_without"]) > 0
    check(result.manifest, "manifest")
    graph = onnx.load(result.path).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    product = next(node for node in graph.node if node.name == "blocks.1/fc1/MatMul")
    assert kinds[product.input[1]] == onnx.TensorProto.FLOAT
    assert [node.name for node in graph.node if node.op_type == "Cast" and node.name.startswith("blocks.1/fc")] == [
        "blocks.1/fc1/MatMul/Cast_in_0",
        "blocks.1/fc2/MatMul/Cast_out_0",
    ]


def test_what_scales_exactly_needs_no_island(tmp_path):
    result = export_onnx(FAULTS["deit-residual-0"].checkpoint(), tmp_path / "model.onnx", AUTO)
    scales = result.manifest["scales"]
    assert (result.manifest["islands"], scales["residual"]) == ([], 4)
    assert "blocks.1.norm1, 61 of 64 channels" in scales  # what LayerNorm leaves of all but the two massive channels
    assert result.parity.top1 == 1


def test_one_channel_of_a_stream_is_scaled_alone(tmp_path):
    """Where no LayerNorm reads it, as in LeViT."""
    result = export_onnx(FAULTS["levit-residual-2"].checkpoint(), tmp_path / "model.onnx", AUTO)
    assert (result.manifest["islands"], result.manifest["scales"]) == ([], {"residual.1, 1 of 24 channels": 4})
    assert result.parity.top1 == 1


def test_an_island_reads_the_image_as_it_is(tmp_path):
    """And scores and features as they were computed: a cast to FP16 between two parts in FP32 would be rounding for nothing."""
    checkpoint, size = healthy("deit"), healthy("deit").recipe.structure.image_size
    options = dataclasses.replace(AUTO, islands=("*",))
    graph = onnx.load(export_onnx(checkpoint, tmp_path / "model.onnx", options).path)
    assert not candidates(graph)
    casts = [node for node in graph.graph.node if node.op_type == "Cast"]
    assert all(a.i != onnx.TensorProto.FLOAT16 for node in casts for a in node.attribute)
    plain = build_model(checkpoint.recipe, checkpoint.state, ModelOptions())
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = plain(torch.from_numpy(images))[0].numpy()
    found = StrictRun(graph)(images)["logits"]
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize(
    ("family", "outputs"),
    [
        ("deit", ("logits",)),
        ("deit", ("logits", "embedding", "block_1")),
        ("timm", ("logits", "kept")),
        ("timm", ("class_token", "norm_block_2")),
        ("levit", ("logits",)),
        ("levit", ("logits", "embedding")),
        ("evit", ("logits", "kept")),
        ("tome", ("logits", "sources")),
    ],
)
def test_powers_of_two_leave_the_function_as_it_is(family, outputs, fold):
    """At every seam of a family, for every output, and to the last bit, since nothing leaves the range of FP32."""
    checkpoint = random_checkpoint(EVIT) if family == "evit" else healthy("timm" if family == "tome" else family)
    if family == "tome":
        recipe = dataclasses.replace(checkpoint.recipe, family="tome_vit", evolution=Merging((1, 2, 0, 1)))
        checkpoint = dataclasses.replace(checkpoint, recipe=recipe)
    module = build_model(checkpoint.recipe, checkpoint.state, ModelOptions(fold=fold, outputs=outputs))
    size = checkpoint.recipe.structure.image_size
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32))
    scaled = copy.deepcopy(module)
    seams = family_of(checkpoint.recipe).seams(scaled)
    powers = {s.name: np.arange(s.channels) % 3 if s.channels else 1 + i % 3 for i, s in enumerate(seams)}
    assert len(powers) == len(seams) > 3
    with torch.inference_mode():
        rescale(seams, powers)
        assert all(map(torch.equal, module(images), scaled(images)))


def test_islands_by_name(tmp_path):
    result = export_onnx(
        healthy("levit"), tmp_path / "model.onnx", dataclasses.replace(AUTO, islands=("blocks.1/mlp",))
    )
    assert result.manifest["islands"]
    assert all(name.startswith("blocks.1/mlp/") for name in result.manifest["islands"])
    graph = onnx.load(result.path)
    assert not any(name.startswith("blocks.1/mlp/") for name in candidates(graph) if name.endswith("MatMul"))
    with pytest.raises(InputError, match=r"island 'blocks\.1/mpl' is no node.*Did you mean"):
        named(graph, ["blocks.1/mpl"])


def test_islands_everywhere_are_called_what_they_are(evovit, tmp_path):
    """The command says what islands cost, and that an FP16 file with nothing left in FP16 is an FP32 model."""
    words = ("export", DIGITS, "--precision", "fp16", "--no-verify", "-o", tmp_path / "x.onnx", "--islands")
    code, shown, said = evovit(*words, "blocks.1/fc1")
    assert (code, "this is an FP32 model" in said) == (0, False)
    assert re.search(r"ONNX Runtime on this CPU, batch 1: [\d.]+ ms, [\d.]+ ms without islands", shown)
    code, shown, said = evovit(*words, "*")
    assert (code, "this is an FP32 model. --precision fp32" in said) == (0, True)


def test_what_has_no_islands_is_refused(tmp_path):
    for options, text in (
        (ExportOptions(islands="auto"), "Add --precision fp16"),
        (ExportOptions(ModelOptions("bf16"), islands="auto"), "is for FP16"),
    ):
        with pytest.raises(InputError, match=text):
            export_onnx(healthy("deit"), tmp_path / "x.onnx", options)
    with pytest.raises(InputError, match="vanilla model"):
        export_baseline("deit_tiny_patch16_224", tmp_path / "x.onnx", AUTO)
    with pytest.raises(InputError, match="'auto' or a tuple"):
        ExportOptions(islands="blocks.1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("needed", "units"), [({3}, 8), ({0, 7}, 8), (set(), 5), ({1, 2, 3, 4}, 5), ({6}, 7), (set(range(4)), 4)]
)
def test_bisection_drops_all_that_can_be_dropped(needed, units):
    tried = []

    def good(members):
        tried.append(members)
        return needed <= members

    assert set().union(*minimise([{i} for i in range(units)], good)) == needed
    assert len(tried) <= 4 * units


@pytest.mark.parametrize("word", ["int8", "fp8"])
def test_other_precisions_are_answered(word):
    said = CliRunner().invoke(app, ["export", "x.pth", "--precision", word])
    assert said.exit_code == 2
    assert "without calibration" in " ".join(said.output.replace("│", " ").split())
    recipe = healthy("deit").recipe
    with pytest.raises(InputError, match="without calibration"):
        family_of(recipe).settled(ModelOptions(word), recipe)
