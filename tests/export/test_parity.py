"""The measures of a parity report."""

import dataclasses
import json

import numpy as np
import pytest

from evovit_deploy import ExportOptions, FakeEngine, InputError, ParityError, export_onnx, random_checkpoint, verify
from evovit_deploy.engines import OrtEngine
from evovit_deploy.export.parity import compare, jaccard
from evovit_deploy.export.proof import run_module, same_kept
from evovit_deploy.images.probes import probe_images, sample_images
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.recording import given_selections
from evovit_deploy.recipes import Tolerance
from tests.levit_reference import TINY as TINY_LEVIT
from tests.modules import module_of

STRICT = Tolerance(max_abs=1e-6, min_cosine=0.999999, min_top1=1.0, min_jaccard=1.0)
LOGITS = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


def test_equal_outputs_pass():
    kept = np.array([[0, 2], [1, 3]])
    report = compare({"logits": LOGITS[:2], "kept_1": kept}, {"logits": LOGITS[:2], "kept_1": kept}, STRICT)
    assert report.passed
    assert (report.max_abs, report.top1, report.jaccard) == (0, 1, {"kept_1": 1})


def test_one_wrong_logit_is_found_and_named():
    other = LOGITS.copy()
    other[3, 2] += 0.5
    report = compare({"logits": LOGITS}, {"logits": other}, STRICT)
    assert not report.passed
    assert "largest logit error 0.5" in report.failure


def test_errors_are_relative_to_large_logits_only():
    report = compare({"logits": LOGITS * 1000}, {"logits": LOGITS * 1000 + 1e-4}, STRICT)
    assert report.passed
    assert not compare({"logits": LOGITS / 1000}, {"logits": LOGITS / 1000 + 1e-4}, STRICT).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_never_passes(bad):
    other = LOGITS.copy()
    other[0, 0] = bad
    loose = Tolerance(1e6, 0.0, 0.0, 0.0)
    assert "not finite (image 1)" in compare({"logits": LOGITS}, {"logits": other}, loose).failure
    assert (
        "reference itself is not finite in 1 of 6 images (image 1)"
        in compare({"logits": other}, {"logits": LOGITS}, loose).failure
    )


def test_each_measure_can_fail_alone():
    a = np.array([[1.0, 0.999, 0.0]], np.float32)
    b = np.array([[0.999, 1.0, 0.0]], np.float32)
    assert "top-1" in compare({"logits": a}, {"logits": b}, Tolerance(1, 0, 1, 0)).failure
    assert "cosine" in compare({"logits": a}, {"logits": -a}, Tolerance(9, 0, 0, 0)).failure
    kept, other = np.array([[0, 1, 2]]), np.array([[0, 1, 3]])
    report = compare({"logits": a, "kept_1": kept}, {"logits": a, "kept_1": other}, Tolerance(1, 0, 0, 0.6))
    assert report.jaccard == {"kept_1": 0.5}
    assert "kept_1" in report.failure


def test_jaccard_is_the_mean_over_images():
    assert jaccard(np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 4]])) == pytest.approx((1 + 1 / 3) / 2)


def test_different_class_counts_cannot_be_compared():
    with pytest.raises(InputError, match="num_classes"):
        verify(FakeEngine(num_classes=3), FakeEngine(num_classes=4))


def test_verify_runs_both_on_the_same_images():
    assert verify(FakeEngine(), FakeEngine()).passed
    assert not verify(FakeEngine(), FakeEngine(logits=lambda images: np.zeros((len(images), 10), np.float32))).passed


def test_sample_images_are_seeded_and_of_the_input_type(tiny):
    a, b = sample_images(tiny.recipe, "float32", 3), sample_images(tiny.recipe, "float32", 3)
    assert np.array_equal(a, b)
    assert (a.shape, a.dtype) == ((3, 3, 64, 64), np.float32)
    pixels = sample_images(tiny.recipe, "uint8", 2, seed=1)
    assert (pixels.shape, pixels.dtype) == ((2, 64, 64, 3), np.uint8)
    assert pixels.std() > 20


def softmax(logits):
    values = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return (values / values.sum(1, keepdims=True)).astype(np.float32)


def leads(*margins):
    """Logits [n, 3] in which class 0 leads class 1 by the given margins."""
    return np.array([[1.0 + margin, 1.0, -1.0] for margin in margins], np.float32)


def changed(logits, *steps):
    """The same with classes 0 and 1 moved towards each other, each by the given step of its image."""
    return logits + np.array([[-step, step, 0] for step in steps], np.float32)


LOOSE = Tolerance(max_abs=0.5, min_cosine=0.0, min_top1=0.0, min_jaccard=0.0)


@pytest.mark.parametrize(
    ("margins", "steps", "passed"),
    [
        ((1.0, 0.001), (0.002, 0.002), True),  # a near-tie flips with an error that other images show too
        ((1.0, 0.1), (0.002, 0.06), False),  # a clear lead flips with an error that no other image shows
        ((1.0, 0.1), (0.06, 0.06), True),  # the same lead where such errors are usual
        ((0.001, 0.001), (0.002, 0.002), False),  # no image agrees: nothing says how large an error is usual
    ],
)
def test_a_different_top_class_is_excused_by_the_reference_margin_only(margins, steps, passed):
    a = leads(*margins)
    report = compare({"logits": a}, {"logits": changed(a, *steps)}, LOOSE, names=("one", "two"))
    assert report.flips
    assert report.passed is passed
    assert passed or "top-1 differs in image" in report.failure
    assert report.flips[-1].image == "two"
    assert report.flips[-1].margin == pytest.approx(margins[1], abs=1e-6)


def test_an_error_is_measured_by_the_logits_of_its_own_image():
    a = np.concatenate([LOGITS[:1], 1000 * LOGITS[1:2]])
    b = a.copy()
    b[0, 0] += 0.5  # 0.5 of 1000 would be nothing
    report = compare({"logits": a}, {"logits": b}, Tolerance(0.05, 0, 0, 0), names=("small", "large"))
    assert report.worst == "small"
    assert "largest logit error 0.5 in image small" in report.failure


@pytest.mark.parametrize("sides", [("logits", "probabilities"), ("probabilities", "logits"), ("probabilities",) * 2])
def test_logits_and_probabilities_are_compared_as_log_probabilities(sides):
    def side(name, logits):
        return {name: logits if name == "logits" else softmax(logits)}

    report = compare(
        side(sides[0], LOGITS), side(sides[1], LOGITS + 3), STRICT
    )  # 3 more in every class changes nothing
    assert report.compared == "log_probabilities"
    assert report.passed, report.failure
    other = LOGITS.copy()
    other[2, 4] += 0.01  # a class of which nobody sees the probability change
    report = compare(side(sides[0], LOGITS), side(sides[1], other), STRICT)
    assert report.error > 0.005
    assert "log-probability error" in report.failure
    assert "cosine of the log-probabilities" in [gate.what for gate in report.gates]


def test_probabilities_that_underflow_are_no_infinite_error():
    a, b = np.array([[0.0, -500, -1000]], np.float32), np.array([[0.0, -501, -999]], np.float32)
    assert compare({"probabilities": softmax(a)}, {"logits": b}, STRICT).passed
    report = compare({"probabilities": np.array([[1, np.nan, 0]], np.float32)}, {"logits": b}, STRICT)
    assert "reference itself is not finite" in report.failure


KEPT = {"kept_1": np.array([[0, 1]]), "kept_2": np.array([[1, 2]])}
OTHER = {"kept_1": np.array([[0, 2]]), "kept_2": np.array([[0, 3]])}


def test_without_class_scores_the_kept_sets_are_compared():
    report = compare(KEPT, {"logits": LOGITS[:1], **KEPT}, STRICT)
    assert (report.compared, report.max_abs, report.top1, report.passed) == (None, None, None, True)
    assert not compare(KEPT, OTHER, STRICT).passed
    with pytest.raises(
        InputError, match="nothing to compare: the reference gives kept_1, kept_2, the other model logits"
    ):
        compare(KEPT, {"logits": LOGITS[:1]}, STRICT)


@pytest.mark.parametrize(("second", "third", "distance", "passed"), [(0.52, 0.48, 0.04, True), (0.6, 0.4, 0.2, False)])
def test_kept_sets_may_differ_near_the_cut_only(second, third, distance, passed):
    """And later stages are not judged, whose scores the first difference has changed."""
    scores = {"kept_1": np.array([[0.9, second, third, 0.1]]), "kept_2": np.array([[0.1, 9, 9, 0.2]])}
    report = compare(KEPT, OTHER, Tolerance(0.05, 0, 0, 0), scores=scores)
    assert report.cut == {"kept_1": pytest.approx(distance), "kept_2": 0.0}
    assert report.passed is passed
    assert passed or "kept_1 differs by a patch whose reference score is 20.00% away from the cut" in report.failure


def test_a_tie_to_the_rounding_of_fp32_is_no_difference():
    scores = {"kept_1": np.array([[0.9, 0.5, 0.5 - 1e-7, 0.1]]), "kept_2": np.array([[0.1, 9, 9, 0.2]])}
    assert compare(KEPT, OTHER, STRICT, scores=scores).passed
    assert not compare(KEPT, OTHER, STRICT).passed  # nobody knows that it was a tie


def test_every_gate_is_in_the_report():
    report = compare({"logits": LOGITS, **{k: np.repeat(v, 6, 0) for k, v in KEPT.items()}}, {"logits": LOGITS}, STRICT)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [gate["name"] for gate in document["gates"]] == ["finite", "error", "cosine", "top1_margin", "top1"]
    assert all(gate["passed"] for gate in document["gates"])
    bad = np.full_like(LOGITS, np.nan)
    document = json.loads(json.dumps(compare({"logits": LOGITS}, {"logits": bad}, STRICT).to_dict(), allow_nan=False))
    assert document["passed"] is False


def test_probes_are_the_shipped_photographs_and_more(tiny):
    probes = probe_images(tiny.recipe)
    photographs = [name for name in probes.names if name.endswith(".jpg")]
    assert len(photographs) >= 8
    assert {"white", "black", "noise"} < set(probes.names)
    assert (probes.pixels.shape, probes.pixels.dtype) == ((len(probes.names), 64, 64, 3), np.uint8)
    assert len({image.tobytes() for image in probes.pixels}) == len(probes.names)
    assert probes.prepared(tiny.recipe.transform, "float32").shape == (len(probes.names), 3, 64, 64)


def test_an_export_is_proven_on_every_probe(tiny, pair, tmp_path, monkeypatch):
    """A model that fails on a white image only does not pass; with a static batch neither."""
    result = export_onnx(tiny, tmp_path / "model.onnx")
    names = probe_images(tiny.recipe).names
    assert result.parity.names == (*names, f"{names[0]}, alone")
    assert set(result.parity.cut) == {"kept_1", "kept_2"}
    run = OrtEngine.run

    def broken(self, images):
        outputs = run(self, images)
        white = (images == images[:, :, :1, :1]).all((1, 2, 3)) & (images[:, 0, 0, 0] > 0)
        outputs["logits"][white] = np.nan
        return outputs

    monkeypatch.setattr(OrtEngine, "run", broken)
    for batch in (None, 3):
        with pytest.raises(ParityError, match=r"not finite \(white\)"):
            export_onnx(pair, tmp_path / "other.onnx", ExportOptions(batch=batch))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.onnx"]


def test_a_different_top_class_is_explained_by_a_near_tie_at_the_cut():
    """Another patch was computed in full, so the error is no longer that of rounding."""
    a = leads(1.0, 0.1)
    sets = {name: np.repeat(value, 2, 0) for name, value in KEPT.items()}
    moved = {name: np.concatenate([value, OTHER[name]]) for name, value in KEPT.items()}
    b = changed(a, 0.002, 0.06)
    for second, passed in ((0.52, True), (0.9, False)):
        scores = {"kept_1": np.array([[0.9, second, 0.48, 0.1]] * 2)}
        report = compare({"logits": a, **sets}, {"logits": b, **moved}, LOOSE, scores=scores)
        assert (report.flips[0].near_cut, report.passed) == (True, True)
        strict = dataclasses.replace(LOOSE, max_abs=0.1)
        report = compare({"logits": a, **sets}, {"logits": b, **moved}, strict, scores=scores)
        assert (report.flips[0].near_cut, report.passed) == (passed, passed)


@pytest.mark.parametrize("family", ["vit", "levit"])
def test_rounding_is_judged_with_the_same_patches_on_both_sides(family, tiny):
    """Another patch at the cut moves the logits; with the other's patches the reference gives the other's logits."""
    checkpoint = tiny if family == "vit" else random_checkpoint(TINY_LEVIT)
    module = module_of(checkpoint, ModelOptions(selection="topk", outputs=("logits", "kept"), fold=False, trim=False))
    size = checkpoint.recipe.structure.image_size
    images = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
    expected, scores = run_module(module, images)
    stages = [name for name in expected if name.startswith("kept_")]
    order = np.argsort(-scores["kept_1"][1])
    swapped = [expected[stage].copy() for stage in stages]
    count = swapped[0].shape[1]
    swapped[0][1] = np.sort(
        [*order[: count - 1], order[count]]
    )  # the best patch that was not kept, for the worst that was
    with given_selections(module, swapped):
        got, _ = run_module(module, images)
    assert [got[stage].tolist() for stage in stages] == [value.tolist() for value in swapped]
    moved = np.abs(got["logits"] - expected["logits"]).max(1)
    assert moved[1] > 1e-4 > moved[[0, 2]].max()
    settled = same_kept(module, images, expected, got)
    assert np.abs(settled["logits"] - got["logits"]).max() <= 1e-6
    assert compare(expected, got, STRICT, scores=scores).error > compare(expected, got, STRICT, settled=settled).error
    assert settled["logits"][1].tolist() != expected["logits"][1].tolist()
    report = compare(expected, got, STRICT, scores=scores, settled=settled)
    assert report.cut["kept_1"] > 0  # which patches differ is still judged, by their distance from the cut
    assert module.pattern == "topk"
    assert "selection_of" not in vars(module)
