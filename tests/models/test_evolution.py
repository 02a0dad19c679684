"""Selection patterns: the same set, and select-then-restore is the identity, whatever the scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evovit_deploy.models.evolution import PATTERNS, ascending, kept_positions, ranks

NAMES = sorted(PATTERNS)
IN_PLACE = sorted(set(PATTERNS) - {"sort"})


@st.composite
def scores_and_keep(draw):
    """Scores [B, N] from few values, so that ties are the rule, and a K."""
    batch, n = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    value = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e-30, 3.0, -1.0, 1e9]) | st.floats(-10, 10, width=32)
    rows = draw(st.lists(st.lists(value, min_size=n, max_size=n), min_size=batch, max_size=batch))
    return torch.tensor(rows, dtype=torch.float32), draw(st.integers(1, n))


def reference_order(scores: torch.Tensor) -> np.ndarray:
    """Descending by score, ties to the lower index, by numpy."""
    return np.argsort(-scores.numpy().astype(np.float64), axis=1, kind="stable")


@given(scores_and_keep())
@settings(max_examples=150)
def test_ranks_are_the_stable_descending_order(case):
    scores, _ = case
    order = reference_order(scores)
    assert np.array_equal(np.argsort(ranks(scores).numpy(), axis=1), order)


@pytest.mark.parametrize("name", NAMES)
@given(case=scores_and_keep())
@settings(max_examples=80)
def test_every_pattern_keeps_the_same_tokens_in_the_same_order(name, case):
    scores, keep = case
    tokens = torch.arange(scores.numel(), dtype=torch.float32).reshape(*scores.shape, 1)
    expected = np.take_along_axis(tokens.numpy()[..., 0], reference_order(scores)[:, :keep], 1)
    assert np.array_equal(PATTERNS[name](scores, keep).select(tokens).numpy()[..., 0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", IN_PLACE)
@given(case=scores_and_keep(), seed=st.integers(0, 2**31))
@settings(max_examples=40)
def test_select_then_restore_is_the_identity(name, dtype, case, seed):
    scores, keep = case
    tokens = torch.randn(*scores.shape, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
    selection = PATTERNS[name](scores, keep)
    assert torch.equal(selection.restore(selection.select(tokens), tokens), tokens)


@pytest.mark.parametrize("name", IN_PLACE)
@given(case=scores_and_keep())
@settings(max_examples=40)
def test_restore_changes_the_kept_tokens_and_no_other(name, case):
    scores, keep = case
    tokens = torch.zeros(*scores.shape, 2)
    selection = PATTERNS[name](scores, keep)
    restored = selection.restore(torch.ones(scores.shape[0], keep, 2), tokens)
    assert torch.equal(restored[..., 0].bool(), selection.kept())
    assert (selection.kept().sum(1) == keep).all()


@given(case=scores_and_keep(), seed=st.integers(0, 2**31))
@settings(max_examples=80)
def test_sort_puts_the_kept_first_and_the_bypassed_after_them(case, seed):
    scores, keep = case
    tokens = torch.randn(*scores.shape, 5, generator=torch.Generator().manual_seed(seed))
    selection = PATTERNS["sort"](scores, keep)
    order = torch.from_numpy(reference_order(scores))[..., None].expand_as(tokens)
    assert torch.equal(selection.restore(selection.select(tokens), tokens), tokens.gather(1, order))
    restored = selection.restore(torch.full((len(scores), keep, 5), 9.0), tokens)
    assert (restored[:, :keep] == 9).all()
    assert torch.equal(restored[:, keep:], tokens.gather(1, order)[:, keep:])


@pytest.mark.parametrize("name", NAMES)
@given(case=scores_and_keep())
@settings(max_examples=40)
def test_kept_is_true_for_as_many_tokens_as_are_selected(name, case):
    scores, keep = case
    selection = PATTERNS[name](scores, keep)
    places = torch.arange(scores.shape[1]).expand_as(scores).float()
    chosen = selection.select(places[..., None])[..., 0].long()
    assert torch.equal(selection.kept(), torch.zeros_like(scores, dtype=torch.bool).scatter(1, chosen, True))
    assert selection.in_place == (name in IN_PLACE)


@given(scores_and_keep(), st.integers(0, 2**31))
@settings(max_examples=80)
def test_ascending_sorts_distinct_positions(case, seed):
    scores, keep = case
    generator = torch.Generator().manual_seed(seed)
    positions = torch.stack([torch.randperm(500, generator=generator)[:keep] for _ in scores]).float()
    got = ascending(positions)
    assert got.dtype == torch.int64
    assert torch.equal(got, positions.long().sort(1).values)


@given(scores_and_keep())
@settings(max_examples=80)
def test_kept_positions_are_the_sorted_kept_indices(case):
    scores, keep = case
    positions = kept_positions(PATTERNS["rank"](scores, keep).kept(), keep)
    assert positions.dtype == torch.int64
    assert np.array_equal(positions.numpy(), np.sort(reference_order(scores)[:, :keep], axis=1))


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_touch_each_other(name):
    scores = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(1))
    together = PATTERNS[name](scores, 7).select(tokens)
    alone = torch.cat([PATTERNS[name](scores[i : i + 1], 7).select(tokens[i : i + 1]) for i in range(4)])
    assert torch.equal(together, alone)
