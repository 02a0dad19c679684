"""Searching schedules: on a made-up accuracy, where the best is known; and once for real, through the command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy import timm_recipe
from evovit_deploy.errors import EvoVitError, InputError, RecipeError
from evovit_deploy.models.families import Rates, families, family_of
from evovit_deploy.models.space import Point, Space
from evovit_deploy.recipes import Recipe, load_recipe, read_recipe
from evovit_deploy.recipes.forms import form_of
from evovit_deploy.recipes.vit import Evolution
from evovit_deploy.sweep import Candidate, Outcome, candidates
from evovit_deploy.sweep.one import Task
from evovit_deploy.sweep.runner import read_outcomes
from evovit_deploy.sweep.search import Search

from .test_front import outcome
from .test_runner import call

pytestmark = pytest.mark.usefixtures("short")
DEIT, LEVIT = load_recipe("evo_deit_tiny_patch16_224"), load_recipe("evo_levit_128s_224")
EVIT, TOME = load_recipe("evit_deit_small_patch16_224"), timm_recipe("test_vit", method="tome")
RATIOS = (0.3, 0.5, 0.7, 0.9)


def made(recipe: Recipe, space: Space, cost: Callable[[tuple[float, ...]], float], point: Point) -> Outcome:
    """What a run at a point would give: a drop by a formula, a latency of 1 ms a GMAC."""
    family = family_of(recipe)
    assert family.work is not None

    def work(at: Point) -> float:
        return family.work(dataclasses.replace(recipe, evolution=space.evolve(space.values(at))))  # type: ignore[misc]

    speedup = work(space.start) / work(point)
    amounts = tuple(v for v, axis in zip(space.values(point), space.axes) if axis.amount)
    one = outcome(
        "full" if point == space.start else str(point), speedup, cost(space.values(point)), latency=work(point) / 1e9
    )
    return dataclasses.replace(one, key=str(point), keep_ratios=amounts, full_ms=work(space.start) / 1e9)


def run(
    recipe: Recipe, cost: Callable[[tuple[float, ...]], float], tries: int = 400, **goal: Any
) -> tuple[Search, list[Point]]:
    search = Search.around(candidates(recipe, RATIOS)[0], None, RATIOS, **goal)
    order: list[Point] = []
    while len(order) < tries and (point := search.next()) is not None:
        assert point not in search.found
        search.found[point] = made(recipe, search.space, cost, point)
        order.append(point)
    return search, order


def late(values: tuple[float, ...]) -> float:
    """What is left out of the first stage hurts ten times as much as of the second; where they start, not at all."""
    return 10 * (1 - values[0]) + (1 - values[1])


def everything(space: Space) -> list[Point]:
    points = product(*(range(len(axis.values)) for axis in space.axes))
    return [point for point in points if space.possible(point)]


@pytest.mark.parametrize("drop", [0.05, 0.8, 3.0, 6.0])
def test_the_least_work_within_a_drop_is_found(drop: float) -> None:
    search, order = run(DEIT, late, max_drop=drop)
    best = min(search.work_at(p) for p in everything(search.space) if late(search.space.values(p)) <= drop)
    found = [point for point, one in search.found.items() if one.drop <= drop]
    assert min(map(search.work_at, found)) == best
    assert len(order) < len(everything(search.space)) / 3


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_the_least_drop_within_a_latency_is_found_or_nearly(share: float) -> None:
    budget = share * family_of(DEIT).work(candidates(DEIT, RATIOS)[0].recipe) / 1e9  # type: ignore[misc]
    search, order = run(DEIT, late, budget_ms=budget)
    drops = [
        late(search.space.values(p)) for p in everything(search.space) if search.work_at(p) / 1e9 <= budget * (1 + 1e-9)
    ]
    within = [one for one in search.found.values() if one.latency_ms <= budget]
    same = min(one.drop for one in within if len(set(one.keep_ratios)) == 1)
    assert min(one.drop for one in within) == pytest.approx(min(drops))
    assert min(one.drop for one in within) < same  # better than the same ratio in both stages
    assert len(order) < len(everything(search.space)) / 3


def test_a_search_begins_with_what_a_sweep_tries() -> None:
    search, order = run(DEIT, late, tries=5, max_drop=1)
    assert [search.candidate(point) for point in order] == [*candidates(DEIT, RATIOS)]


def test_the_same_outcomes_lead_to_the_same_schedules() -> None:
    _, order = run(DEIT, late, max_drop=1)
    assert run(DEIT, late, max_drop=1)[1] == order
    assert run(DEIT, late, tries=9, max_drop=1)[1] == order[:9]


def test_a_full_model_within_the_budget_ends_it() -> None:
    _, order = run(DEIT, late, budget_ms=1e9)
    assert len(order) == 1 + len(RATIOS)


@pytest.mark.parametrize("family", [row for row in families() if row.space is not None], ids=lambda row: row.name)
def test_every_space_has_one_name_for_one_schedule(family: Any) -> None:
    own = next((recipe for recipe in (DEIT, LEVIT, EVIT, TOME) if form_of(recipe.family) == family.form), None)
    assert own is not None, "give this test a recipe of the family"
    recipe = dataclasses.replace(own, family=family.name)
    space = family.space(recipe, Rates(keep=(0.5,), r=(3,)))
    points = everything(space)
    assert len({space.name(space.values(point)) for point in points}) == len(points)
    evolutions = [space.evolve(space.values(point)) for point in points]
    assert len(set(map(repr, evolutions))) == len(points)
    for point in points:
        assert family.work(dataclasses.replace(recipe, evolution=space.evolve(space.values(point)))) > 0
        for neighbour in space.neighbours(point):
            assert neighbour in points
            moved = [abs(a - b) for a, b in zip(point, neighbour)]
            assert sum(moved) in (1, 2)
            assert max(moved) == 1


def test_every_block_merges_what_it_is_told() -> None:
    space = family_of(TOME).space(TOME, Rates(r=(4, 2)))  # type: ignore[misc]
    assert [axis.values for axis in space.axes] == [(0, 2, 4)] * 6
    assert space.evolve((4, 4, 2, 2, 0, 0)).facts() == {"r": (4, 4, 2, 2, 0, 0)}
    assert space.name((4, 4, 2, 2, 0, 0)) == "r_4_4_2_2_0_0"
    assert [one.name for one in candidates(TOME, r=(4, 2))] == ["full", "r_4", "r_2"]
    assert candidates(TOME)[-1].recipe.evolution.facts()["r"] == (round(0.9 * 100 / 6),) * 6
    with pytest.raises(RecipeError, match=r"r 2\.5 is impossible"):
        candidates(TOME, r=(2.5,))
    with pytest.raises(RecipeError, match="no token would be left"):
        candidates(TOME, r=(17,))


def test_places_move_and_keep_their_ratios() -> None:
    space = family_of(EVIT).space(EVIT, Rates(keep=(0.5, 0.7)))  # type: ignore[misc]
    evolution = space.evolve((0.7, 1.0, 0.5, 2.0, 6.0, 10.0))
    assert evolution.facts() == {"places": (2, 6, 10), "keep ratios": (0.7, 1.0, 0.5), "fused token": True}
    assert space.name((0.7, 1.0, 0.5, 2.0, 6.0, 10.0)) == "stage_0.7_1_0.5_at_2_6_10"
    with pytest.raises(RecipeError, match="changes nothing"):
        space.evolve((0.7, 1.0, 0.5, 2.0, 7.0, 10.0))


@pytest.mark.parametrize("first", range(12))
def test_the_first_place_may_be_any_block(first: int) -> None:
    still: Any = dataclasses.replace(EVIT.evolution, places=(first,), keep_ratios=(1.0,) * 12)  # type: ignore[type-var, call-arg]
    recipe = dataclasses.replace(EVIT, evolution=still.with_keep((0.5,)))
    space = family_of(recipe).space(recipe, Rates(keep=(0.5, 0.7)))  # type: ignore[misc]
    blocks = space.axes[1].values
    assert blocks[space.start[1]] == first
    assert list(blocks) == [block for block in range(first - 2, first + 3) if 1 <= block < 12 or block == first == 0]
    for block in blocks:
        assert space.evolve((0.5, block)).facts()["places"] == (int(block),)
    assert len(candidates(recipe, [0.5])) == 2


def test_stages_move_and_keep_their_ratios() -> None:
    space = family_of(DEIT).space(DEIT, Rates(keep=(0.5, 0.7)))  # type: ignore[misc]
    evolution = space.evolve((0.7, 0.5, 3.0, 9.0))
    assert isinstance(evolution, Evolution)
    assert (evolution.stage_starts, evolution.stage_ratios) == ((3, 9), (0.7, 0.5))
    assert evolution.tradeoff == DEIT.evolution.tradeoff  # type: ignore[attr-defined]
    assert space.name((0.7, 0.5, 3.0, 9.0)) == "stage_0.7_0.5_at_3_9"
    assert space.name((0.7, 0.5, 4.0, 8.0)) == "stage_0.7_0.5"
    assert not space.possible(tuple(axis.values.index(v) for axis, v in zip(space.axes, (0.7, 0.5, 6, 6))))


@pytest.mark.parametrize("recipe", [DEIT, LEVIT, EVIT, TOME], ids=lambda recipe: recipe.family)
def test_work_is_what_the_graph_has(recipe: Recipe) -> None:
    """Of what differs between schedules: classes, stem and the steps between stages are the same in all."""
    from evovit_deploy.bench.work import module_work
    from evovit_deploy.checkpoint import random_checkpoint
    from evovit_deploy.engines import TorchEngine

    if recipe in (DEIT, EVIT):  # not as wide as DeiT: it is built for every schedule
        recipe = dataclasses.replace(recipe, structure=dataclasses.replace(recipe.structure, embed_dim=96))
    family, counted, estimated = family_of(recipe), [], []
    assert family.work is not None
    for own in (one.recipe for one in candidates(recipe)[1::3]):
        engine = TorchEngine.from_checkpoint(random_checkpoint(own), provider="cpu")
        work = module_work(engine)
        assert work is not None
        counted.append(work.macs)
        estimated.append(family.work(own))
    assert estimated[1] - estimated[0] == pytest.approx(counted[1] - counted[0], rel=0.05)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--search",), "needs to know what for: give --max-drop POINTS, --budget TIME, or both"),
        (("--search", "--max-drop", "nan"), "is not a number of percentage points"),
        (("--search", "--max-drop", "500"), "is not a number of percentage points"),
        (("--search", "--budget", "soon"), "--budget 'soon' is not a time"),
        (("--search", "--max-drop", "1", "--time", "0m"), "--time '0m' is not a time; for example: --time 10m"),
        (("--search", "--max-drop", "1", "--per-stage"), "Leave --per-stage out"),
        (("--search", "--max-drop", "1", "--schedule", "both"), "stays in one schedule"),
        (("--search", "--max-drop", "1", "--ratios", "1"), "there is nothing to search"),
        (("--max-drop", "1", "--tries", "3"), "--tries is for a search of schedules"),
        (("--max-drop", "1", "--time", "3m"), "--time is for a search of schedules"),
    ],
)
def test_wrong_goals_before_anything_is_run(
    some: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    reason: str,
) -> None:
    with pytest.raises(InputError, match=reason):
        call("--data", some, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_an_impossible_ratio() -> None:
    with pytest.raises(RecipeError, match="keep ratio 2 is impossible"):
        Search.around(candidates(DEIT, [0.5])[0], "stage", (2.0,), max_drop=1)
    with pytest.raises(RecipeError, match=r"keep ratio 0\.001 in block 4 keeps no patch"):
        Search.around(candidates(DEIT, [0.5])[0], "stage", (0.001,), max_drop=1)


def test_a_search_is_interrupted_runs_out_of_time_and_goes_on(
    some: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever ended it, the same command goes on, and the same schedules are tried in the same order."""
    real, ran = Task.run, []

    def run(self: Task, candidate: Candidate, *rest: Any) -> Any:
        ran.append(candidate.name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return real(self, candidate, *rest)

    monkeypatch.setattr(Task, "run", run)
    folder = tmp_path / "out"
    command = ("--data", some, "-o", folder, "--ratios", "0.25", "--backend", "pytorch", "--workers", 0)
    command = (*command, "--search", "--max-drop", "100", "--tries", "2")
    timed = call(*command, "--time", "1us", "--json")
    assert json.loads(timed.stdout)["search"] == {"tried": 0, "ended": "time"}
    assert "the same command goes on" in timed.stderr
    assert [one.name for one in read_outcomes(folder / "outcomes.jsonl")] == ["full"]

    assert "the same command resumes there" in call(*command, code=130).stderr
    document = json.loads(call(*command, "--json").stdout)
    assert document["search"] == {"tried": 2, "ended": "tries"}
    assert ran == ["full", "stage_0.25_0.25", "stage_0.25_0.25_at_3_8", "stage_0.25_0.25_at_3_8"]
    assert [one["name"] for one in document["outcomes"]] == [*dict.fromkeys(ran)]
    macs = [one["macs"] for one in document["outcomes"]]
    assert macs[0] > macs[1] > macs[2]
    assert {one["full_macs"] for one in document["outcomes"]} == {macs[0]}
    assert json.loads(call(*command, "--json").stdout)["outcomes"] == document["outcomes"]
    assert len(ran) == 4  # nothing is run again
    assert read_recipe(folder / "recipe.toml").name == "recipe"


@pytest.mark.slow
def test_a_file_in_the_way_of_a_step(some: Path, shallow: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "models").mkdir(parents=True)
    theirs = folder / "models" / "stage_0.25_0.25_fp32.onnx"
    theirs.write_text("mine")
    with pytest.raises(EvoVitError, match=r"stage_0\.25_0\.25_fp32\.onnx"):
        call(
            "--data",
            some,
            "-o",
            folder,
            "--ratios",
            "0.25",
            "--search",
            "--max-drop",
            "100",
            "--tries",
            "1",
            "--workers",
            0,
            model=shallow,
        )
    assert theirs.read_text() == "mine"
