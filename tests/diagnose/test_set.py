"""The set of faulty models: named, repaired, never passed in silence.

A few of them always run; all of them, some ten minutes of CPU, with ``pytest --whole tests/diagnose/test_set.py``.
"""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from evovit_deploy import ExportOptions, ModelOptions, ParityError, export_onnx
from evovit_deploy.diagnose import diagnose
from evovit_deploy.export import graph as graphs
from evovit_deploy.export.proof import run_module
from evovit_deploy.export.strict import StrictRun
from evovit_deploy.images.probes import probe_images
from evovit_deploy.models.build import build_model

from .faults import ALL, Fault, healthy

# What no island cures yet: the image and what a graph casts between its parts are rounded all the same. They are refused.
REFUSED = {f"deit-residual-{n}" for n in (1, 2)} | {f"timm-logits-{n}" for n in (0, 1, 2)} | {"timm-residual-1"}
REFUSED |= {f"levit-residual-{n}" for n in (0, 1, 2)} | {"levit-logits-0", "levit-mlp-2", "levit-fold-2"}
SAMPLE = ("timm-mlp-0", "deit-residual-1")  # one that is repaired, and one that is refused
MADE: dict[str, tuple[bytes, dict[str, str]]] = {}


@pytest.fixture(autouse=True)
def weights_into_one_export(monkeypatch):
    """Models that differ in weights only are exported once, and get their weights afterwards: that is where the time goes."""
    export = graphs.to_onnx

    @functools.wraps(export)
    def to_onnx(module, example, names, **options):
        dtype = next(module.parameters()).dtype
        scales = [part.scale for part in module.modules() if hasattr(part, "scale")]
        key = repr((module, dtype, names, options, example.shape, scales)).replace("eps=", "")
        key = re.sub(r"\b\d\.?\d*e-\d+", "", key)
        if key not in MADE:
            MADE[key] = template(module, lambda part: export(part, example, names, **options))
        data, sources = MADE[key]
        model = onnx.ModelProto.FromString(data)
        parts = parts_of(module)
        for tensor in model.graph.initializer:
            if tensor.name in sources:
                value = parts[sources[tensor.name]].contiguous().numpy()
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        for node in model.graph.node:
            if node.op_type == "LayerNormalization":
                path = node.name.rpartition("/")[0].replace("/", ".")
                eps = next(p.eps for n, p in module.named_modules() if isinstance(p, nn.LayerNorm) and path.endswith(n))
                next(a for a in node.attribute if a.name == "epsilon").f = eps
        return model

    monkeypatch.setattr("evovit_deploy.export.graph.to_onnx", to_onnx)
    monkeypatch.setattr("evovit_deploy.export.onnx.to_onnx", to_onnx)


def parts_of(module) -> dict[str, torch.Tensor]:
    """Everything that the exporter makes a constant of: parameters, transposed ones, and the two parts of the positions."""
    parts = {}
    for name, parameter in module.named_parameters():
        parts[name] = parameter
        if parameter.dim() == 2:
            parts[f"{name}.T"] = parameter.t()
    prefix = module.cls_token.shape[1]
    parts["first"], parts["places"] = module.pos_embed[:, :prefix], module.pos_embed[:, prefix:]
    parts["first token"] = module.cls_token + parts["first"]
    return parts


def template(module, export):
    """An export of the module with random weights, and which of its constants are which part."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    model = export(other)
    sources = {}
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        for name, part in parts_of(other).items():
            if part.shape == value.shape and part.numpy().dtype == value.dtype and np.array_equal(part, value):
                sources.setdefault(tensor.name, name)
        whole = value.dtype.kind != "f" or np.array_equal(value, value.round())  # positions, masks
        assert tensor.name in sources or whole or value.size < 32, f"{tensor.name} {value.shape} is no parameter"
    return model.SerializeToString(), sources


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=str(fault), marks=[] if str(fault) in SAMPLE else pytest.mark.whole) for fault in ALL],
)
def test_a_fault_is_named_and_repaired(fault: Fault, tmp_path: Path):
    checkpoint, options = fault.checkpoint(), ModelOptions("fp16", outputs=("logits", "kept"), fold=fault.fold)
    with pytest.raises(ParityError):  # not in silence
        export_onnx(checkpoint, tmp_path / "silent.onnx", ExportOptions(options))
    found = diagnose(checkpoint, options=options)
    assert not found.passed
    assert found.culprits[0].block == fault.block
    if str(fault) in REFUSED:
        with pytest.raises(ParityError):
            export_onnx(checkpoint, tmp_path / "mended.onnx", ExportOptions(options, islands="auto"))
        assert not list(tmp_path.iterdir())
        return
    result = export_onnx(checkpoint, tmp_path / "mended.onnx", ExportOptions(options, islands="auto"))
    assert result.manifest["islands"] or result.manifest["scales"]
    plain = build_model(
        checkpoint.recipe, checkpoint.state, ModelOptions("fp32", "float32", "topk", ("logits",), False)
    )
    images = probe_images(checkpoint.recipe).prepared(checkpoint.recipe.transform, "float32")
    expected, _ = run_module(plain, images)
    got = StrictRun(onnx.load(result.path))(images)
    assert (got["logits"].argmax(1) == expected["logits"].argmax(1)).all()
    print(f"{fault}: {len(result.manifest['islands'])} islands, scales {result.manifest['scales']}")


@pytest.mark.whole
@pytest.mark.parametrize("family", ["deit", "timm", "levit"])
def test_a_sound_model_gets_nothing(family, tmp_path):
    options = ExportOptions(ModelOptions("fp16"), islands="auto")
    result = export_onnx(healthy(family), tmp_path / "model.onnx", options)
    assert (result.manifest["islands"], result.manifest["scales"]) == ([], {})
