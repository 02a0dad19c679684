"""The set of faulty models: named, repaired, never passed in silence.

A few of them always run; all of them, some ten minutes of CPU, with ``pytest --whole tests/diagnose/test_set.py``.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from evovit_deploy import ExportOptions, ModelOptions, ParityError, export_onnx
from evovit_deploy.diagnose import diagnose
from evovit_deploy.export.proof import run_module
from evovit_deploy.export.strict import StrictRun
from evovit_deploy.images.probes import probe_images
from evovit_deploy.models.build import build_model

from .faults import ALL, Fault, healthy

SAMPLE = ("deit-mlp-0", "timm-tie-0")
pytestmark = pytest.mark.usefixtures("weights_into_one_export")


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
    if fault.name == "tie":  # the cut moves, and that is said beside what moves it
        assert ("near-tie", fault.block + 1) in {(culprit.reason, culprit.block) for culprit in found.culprits}
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
