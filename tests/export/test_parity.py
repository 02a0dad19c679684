"""The measures of a parity report."""

import numpy as np
import pytest

from evovit_deploy import FakeEngine, InputError, verify
from evovit_deploy.export.parity import compare, jaccard, sample_images
from evovit_deploy.recipes import Tolerance

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
    loose = Tolerance(1e9, -1.0, 0.0, 0.0)
    assert compare({"logits": LOGITS}, {"logits": other}, loose).failure == "the logits are not finite"


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
