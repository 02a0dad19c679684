"""Exported files in ONNX Runtime against the authors' model, and every pair of settings against the plain one."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from evovit_deploy import Engine, ExportOptions, export_onnx, random_checkpoint
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from tests.models.plain import PlainEvoDeit

from .conftest import TINY

OUTPUTS = ("logits", "kept")
SCHEDULES = ("stage", "layer")
# The authors' models have twelve blocks and take as long to export: every keep ratio, schedule and folding once, with the
# pattern that is default and the one that is least like it. Every pair of two settings is held to the plain model in four blocks;
# all 32 combinations are held to the authors' in PyTorch (tests/models/test_vit.py).
AUTHORS = [
    ("evo_deit_micro", "stage", "sort", True),
    ("evo_deit_micro_keep70", "layer", "onehot", False),
]
PLAIN = [
    (SCHEDULES[n ^ (p & 1)], selection, bool(n ^ (p >> 1)))
    for p, selection in enumerate(sorted(PATTERNS))
    for n in (0, 1)
]


def test_every_pair_of_settings_occurs():
    assert {pattern for _, pattern, _ in PLAIN} == set(PATTERNS)
    for first, second in itertools.combinations(zip(*PLAIN, strict=True), 2):
        assert len(set(zip(first, second, strict=True))) == len(set(first)) * len(set(second))
    for setting in zip(*AUTHORS, strict=True):
        assert len(set(setting)) == 2


@pytest.mark.parametrize(("name", "schedule", "selection", "fold"), AUTHORS)
def test_fp32(load_case, tmp_path, name, schedule, selection, fold):
    checkpoint, data = load_case(name, schedule)
    options = ExportOptions(ModelOptions(selection=selection, outputs=OUTPUTS, fold=fold), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    expected = data["logits" if schedule == "stage" else "logits_layerwise"]
    with Engine.open(path, provider="cpu") as engine:
        got = engine(data["images"])  # n, and above the two images the export was traced with
        assert len(data["images"]) > 2
        alone = engine(data["images"][:1])
        many = engine(np.concatenate([data["images"]] * 3))
    assert np.abs(got["logits"] - expected).max() <= 1e-5
    assert np.abs(alone["logits"] - expected[:1]).max() <= 1e-5
    assert np.abs(many["logits"] - np.concatenate([expected] * 3)).max() <= 1e-5
    if schedule == "stage":
        for stage in (1, 2):
            assert np.array_equal(got[f"kept_{stage}"], data[f"stage{stage}_kept"])


@pytest.fixture(scope="module")
def small():
    """Make (a checkpoint of four blocks of a schedule, six images, logits and kept patches of the plain model)."""

    def make(schedule: str):
        recipe = dataclasses.replace(TINY, evolution=dataclasses.replace(TINY.evolution, schedule=schedule))
        checkpoint, evolution = random_checkpoint(recipe), recipe.evolution
        starts = [i for i in range(4) if evolution.keep_ratios[i] < 1 and (schedule == "layer" or i in (1, 3))]
        assert evolution.stage_starts == (1, 3)
        plain = PlainEvoDeit(checkpoint.state, 1, evolution.keep_ratios, evolution.tradeoff, starts)
        images = np.random.default_rng(0).standard_normal((6, 3, 64, 64)).astype(np.float32)
        logits, kept = zip(*map(plain, images), strict=True)
        return checkpoint, images, np.stack(logits), [np.array(places) for places in zip(*kept, strict=True)]

    return {schedule: make(schedule) for schedule in SCHEDULES}


@pytest.mark.parametrize(("schedule", "selection", "fold"), PLAIN)
def test_four_blocks_are_the_plain_model(small, tmp_path, schedule, selection, fold):
    checkpoint, images, logits, kept = small[schedule]
    options = ExportOptions(ModelOptions(selection=selection, outputs=OUTPUTS, fold=fold), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    with Engine.open(path, provider="cpu") as engine:
        for some in (slice(None), slice(0, 1), slice(2, 5)):
            got = engine(images[some])
            assert np.abs(got["logits"] - logits[some]).max() <= 1e-5
            assert len(got) == 1 + len(kept)
            for number, places in enumerate(kept):
                assert np.array_equal(got[f"kept_{number + 1}"], places[some])


def test_half_precision_keeps_the_top_class(load_case, tmp_path):
    """In BF16, the coarser one; the other pairs of schedule and precision in PyTorch (tests/models/test_vit.py), and below."""
    from evovit_deploy.engines import OrtEngine

    checkpoint, data = load_case("evo_deit_micro_keep70", "stage")
    options = ExportOptions(ModelOptions("bf16", outputs=OUTPUTS), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    with OrtEngine(path, provider="cpu", emulate=True) as engine:
        got = engine(data["images"])
    assert np.array_equal(got["logits"].argmax(1), data["logits"].argmax(1))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_half_precision_is_proven(small, tmp_path, schedule, precision):
    options = ExportOptions(ModelOptions(precision, outputs=OUTPUTS))
    report = export_onnx(small[schedule][0], tmp_path / "model.onnx", options).parity
    assert report is not None
    assert report.passed
