"""Groups and liveness of class attention."""

import random

import pytest

from evovit_deploy.errors import RecipeError
from evovit_deploy.models.vit.schedule import plan
from evovit_deploy.recipes import Evolution, load_recipe

PUBLISHED = load_recipe("evo_deit_small_patch16_224").evolution


def live(evolution: Evolution, n: int = 196) -> set[int]:
    return {block for group in plan(evolution, n) for block in group.weights}


def test_published_schedule_has_three_groups_and_class_attention_in_blocks_3_to_7():
    groups = plan(PUBLISHED, 196)
    assert [(g.first, g.stop, g.keep) for g in groups] == [(0, 4, None), (4, 8, 98), (8, 12, 98)]
    assert groups[0].weights == {3: 1}
    assert groups[1].weights == {4: 0.0625, 5: 0.125, 6: 0.25, 7: 0.5}
    assert groups[1].carry == 0.0625
    assert groups[2].weights == {}


def test_tradeoff_below_one_keeps_earlier_class_attentions_alive():
    evolution = Evolution(PUBLISHED.keep_ratios, (1, 0.5, 0.5, 0.5, *PUBLISHED.tradeoff[4:]))
    assert live(evolution) == set(range(8))


def test_tradeoff_zero_never_computes_that_class_attention():
    evolution = Evolution(PUBLISHED.keep_ratios, (1, 0, 0, 0, 0, 0.5, 0, 0.5, *PUBLISHED.tradeoff[8:]))
    assert live(evolution) == {0, 5, 7}


def test_layer_schedule_selects_around_every_block_that_prunes():
    groups = plan(Evolution(PUBLISHED.keep_ratios, PUBLISHED.tradeoff, "layer"), 49)
    assert [(g.first, g.stop, g.keep) for g in groups] == [(0, 4, None), *((i, i + 1, 24) for i in range(4, 12))]
    assert {b for g in groups for b in g.weights} == set(range(3, 11))


def test_a_stage_that_keeps_all_tokens_selects_nothing():
    groups = plan(PUBLISHED.with_keep((1.0, 0.5)), 196)
    assert [(g.first, g.stop, g.keep) for g in groups] == [(0, 8, None), (8, 12, 98)]
    assert live(PUBLISHED.with_keep((1.0, 1.0))) == set()


def test_keep_count_is_the_authors_int():
    assert plan(PUBLISHED.with_keep((0.7, 0.5)), 49)[1].keep == 34


def test_a_ratio_that_keeps_nothing_is_an_error_that_names_the_smallest():
    with pytest.raises(RecipeError, match=r"block 4 keeps no patch of 49; the smallest that keeps one is 0\.02041"):
        plan(PUBLISHED.with_keep((0.01, 0.5)), 49)


@pytest.mark.parametrize("seed", range(20))
def test_unrolled_weights_equal_the_recurrence(seed):
    """Run s <- (1 - t) s + t c with random numbers, and compare the scores each selection reads."""
    rng = random.Random(seed)
    tradeoff = tuple(rng.choice([0, 0.25, 0.5, 1]) for _ in range(12))
    evolution = Evolution(PUBLISHED.keep_ratios, tradeoff)
    c = [rng.random() for _ in range(12)]
    scores: list[float] = []  # after each block, for a token that is always kept
    for block in range(12):
        t = 1 if block == 0 else tradeoff[block]
        scores.append((1 - t) * (scores[-1] if scores else 0) + t * c[block])
    groups = plan(evolution, 196)
    value = 0.0
    for group in groups[:-1]:
        value = group.carry * value + sum(weight * c[block] for block, weight in group.weights.items())
        assert value == pytest.approx(scores[group.stop - 1], abs=1e-12)
