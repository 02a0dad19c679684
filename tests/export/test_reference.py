"""Exported files in ONNX Runtime against the authors' model, and every pair of settings against the plain one."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from evovit_deploy import Engine, ExportOptions, export_onnx, load_checkpoint, random_checkpoint
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution
from tests.models.plain import PlainEvoDeit

from .conftest import TINY

OUTPUTS = ("logits", "kept")
# Which blocks select: the second of two in the first stage does not, and three of a layer schedule select twice too.
SCHEDULES = {"stage": (1, 3), "layer": (1, 2)}
PLAIN = [
    (tuple(SCHEDULES)[n ^ (p & 1)], selection, bool(n ^ (p >> 1)))
    for p, selection in enumerate(sorted(PATTERNS))
    for n in (0, 1)
]


def test_every_pair_of_settings_occurs():
    assert {pattern for _, pattern, _ in PLAIN} == set(PATTERNS)
    for first, second in itertools.combinations(zip(*PLAIN, strict=True), 2):
        assert len(set(zip(first, second, strict=True))) == len(set(first)) * len(set(second))


def test_fp32(reference, tmp_path):
    """The authors' twelve blocks from end to end once, with what is least like the default.

    In PyTorch all combinations are (tests/models/test_vit.py); in ONNX Runtime every pair of them is held to the plain model in a
    few blocks, and the default of twelve too (tests/models/test_plain.py), where the plain model is held to the authors'.
    """
    checkpoint = load_checkpoint(reference / "evo_deit_micro_keep70.pth")
    recipe, data = checkpoint.recipe, np.load(reference / "evo_deit_micro_keep70.npz")
    recipe = dataclasses.replace(recipe, evolution=recipe.evolution.with_keep((0.7, 0.5)))
    options = ExportOptions(ModelOptions(selection="onehot", outputs=OUTPUTS, fold=False), prove=False)
    path = export_onnx(dataclasses.replace(checkpoint, recipe=recipe), tmp_path / "model.onnx", options).path
    images, expected = data["images"], data["logits"]
    with Engine.open(path, provider="cpu") as engine:
        got = engine(images)  # n, and above the two images the export was traced with
        assert len(images) > 2
        alone = engine(images[:1])
        many = engine(np.concatenate([images] * 3))
    assert np.abs(got["logits"] - expected).max() <= 1e-5
    assert np.abs(alone["logits"] - expected[:1]).max() <= 1e-5
    assert np.abs(many["logits"] - np.concatenate([expected] * 3)).max() <= 1e-5
    for stage in (1, 2):
        assert np.array_equal(got[f"kept_{stage}"], data[f"stage{stage}_kept"])


@pytest.fixture(scope="module")
def small():
    """By schedule: (a checkpoint that selects twice, six images, logits and kept patches of the plain model)."""

    def make(schedule: str):
        recipe = TINY
        if schedule == "layer":
            evolution = Evolution((1, 0.5, 0.5), (1, 0.5, 0.5), stage_starts=(1,), schedule="layer")
            structure = dataclasses.replace(TINY.structure, depth=3)
            recipe = dataclasses.replace(TINY, name="evo_deit_layer_test", structure=structure, evolution=evolution)
        checkpoint, evolution = random_checkpoint(recipe), recipe.evolution
        plain = PlainEvoDeit(checkpoint.state, 1, evolution.keep_ratios, evolution.tradeoff, list(SCHEDULES[schedule]))
        images = np.random.default_rng(0).standard_normal((6, 3, 64, 64)).astype(np.float32)
        logits, kept = zip(*map(plain, images), strict=True)
        return checkpoint, images, np.stack(logits), [np.array(places) for places in zip(*kept, strict=True)]

    return {schedule: make(schedule) for schedule in SCHEDULES}


@pytest.mark.parametrize(("schedule", "selection", "fold"), PLAIN)
def test_a_few_blocks_are_the_plain_model(small, tmp_path, schedule, selection, fold):
    checkpoint, images, logits, kept = small[schedule]
    options = ExportOptions(ModelOptions(selection=selection, outputs=OUTPUTS, fold=fold), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    assert len(kept) == 2
    with Engine.open(path, provider="cpu") as engine:
        for some in (slice(None), slice(0, 1), slice(2, 5)):
            got = engine(images[some])
            assert np.abs(got["logits"] - logits[some]).max() <= 1e-5
            assert len(got) == 1 + len(kept)
            for number, places in enumerate(kept):
                assert np.array_equal(got[f"kept_{number + 1}"], places[some])


@pytest.fixture(scope="module", params=[(s, p) for s in SCHEDULES for p in ("fp16", "bf16")], ids="-".join)
def half(request, tmp_path_factory):
    """(schedule, proven export in half precision)."""
    schedule, precision = request.param
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    options = ExportOptions(ModelOptions(precision, outputs=OUTPUTS))
    return schedule, export_onnx(request.getfixturevalue("small")[schedule][0], path, options)


def test_half_precision_keeps_the_top_class(small, half):
    """The authors' in PyTorch: tests/models/test_vit.py."""
    from evovit_deploy.engines import OrtEngine

    schedule, result = half
    _, images, logits, _ = small[schedule]
    with OrtEngine(result.path, provider="cpu", emulate=True) as engine:
        got = engine(images)
    assert np.array_equal(got["logits"].argmax(1), logits.argmax(1))


def test_half_precision_is_proven(half):
    report = half[1].parity
    assert report is not None
    assert report.passed
