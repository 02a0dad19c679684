"""Which blocks run on which tokens, and which class rows live."""

import pytest

from evovit_deploy import load_recipe
from evovit_deploy.models.levit.schedule import plan
from evovit_deploy.recipes import LevitEvolution, LevitStructure

HALF = [0.5] * 14


def groups(name):
    structure, evolution = load_recipe(name).parts(LevitStructure, LevitEvolution)
    return [
        (g.first, g.stop, g.keep, sorted(g.weights)) for stage in plan(structure, evolution, HALF) for g in stage.groups
    ]


def test_128s_runs_all_of_stage_1_on_all_tokens():
    assert groups("evo_levit_128s_224") == [(0, 2, None, [0, 1]), (2, 5, 24, [2, 3, 4]), (5, 9, 8, [])]


def test_the_others_select_in_stage_1_too():
    assert groups("evo_levit_256_384") == [
        (0, 2, None, [0, 1]),
        (2, 4, 288, [2, 3]),
        (4, 8, 72, [4, 5, 6, 7]),
        (8, 12, 18, []),
    ]


def test_weights_are_those_of_one_attention_after_the_other():
    """Unrolled by hand: s = c_0; s = (1-t) s + t c_1; then the subsampling attention."""
    structure = LevitStructure(64, (16, 16), 8, (4, 2), (2, 1))
    first, last = plan(structure, LevitEvolution((0.5,), 2), [0.9, 0.25, 0.5, 0.7])
    (group,) = first.groups
    assert group.carry == 0
    assert group.weights == pytest.approx({0: 0.75 / 4, 1: 0.25 / 4})
    assert (first.carry, first.weight) == (0.5, 0.5 / 2)
    assert (last.carry, last.weight, last.groups[0].weights) == (0, 0, {})


def test_no_row_lives_after_the_last_selection():
    structure, evolution = load_recipe("evo_levit_128_224").parts(LevitStructure, LevitEvolution)
    first, second, third = plan(structure, evolution.with_keep((0.5, 1.0, 1.0)), HALF)
    assert [sorted(group.weights) for group in first.groups] == [[0, 1], []]
    assert not first.weight
    assert not any(group.weights for stage in (second, third) for group in stage.groups)
