from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evovit_deploy.errors import InputError
from evovit_deploy.sweep import Outcome, choose, comparable, front
from evovit_deploy.sweep.plot import draw, plot
from evovit_deploy.sweep.table import table


def outcome(name: str, speedup: float, drop: float, latency: float | None = None, **other: object) -> Outcome:
    fields: dict[str, object] = {
        "key": name, "name": name, "schedule": "stage", "keep_ratios": (1.0 if name == "full" else 0.5,),
        "latency_ms": latency or 10 / speedup,
        "batch": 1, "images_per_second": 1.0, "speedup": speedup, "speedup_low": speedup * 0.9,
        "speedup_high": speedup * 1.1, "stable": True, "images": 100, "agreement": 1 - abs(drop) / 100,
        "top1": 0.8 - drop / 100, "top1_low": 0.7, "top1_high": 0.9, "drop": drop, "mcnemar_p": 1.0,
    }  # fmt: skip
    return Outcome(**(fields | other))  # type: ignore[arg-type]


SOME = [
    outcome("full", 1, 0),
    outcome("a", 1.5, 0.4),
    outcome("b", 1.4, 0.9),
    outcome("c", 2, 2),
    outcome("d", 0.9, -0.2),
]
numbers = st.lists(st.tuples(st.integers(1, 9), st.integers(-5, 5)), min_size=1, max_size=12)


def test_front() -> None:
    assert [one.name for one in front(SOME)] == ["d", "full", "a", "c"]


@given(numbers)
def test_nothing_off_the_front_is_better_than_all_on_it(points: list[tuple[int, int]]) -> None:
    outcomes = [outcome(str(i), speed, drop) for i, (speed, drop) in enumerate(points)]
    best = front(outcomes)
    assert best
    for one in outcomes:
        assert any(other.speedup >= one.speedup and other.drop <= one.drop for other in best)
        beaten = any(
            (o.speedup > one.speedup and o.drop <= one.drop) or (o.speedup >= one.speedup and o.drop < one.drop)
            for o in outcomes
        )
        assert (one in best) != beaten


@pytest.mark.parametrize(
    ("budget", "drop", "name"),
    [
        (None, 0.5, "a"),
        (None, 0, "full"),
        (None, 5, "c"),
        (7, None, "a"),
        (5.5, None, "c"),
        (20, None, "d"),
        (8, 1, "a"),
    ],
)
def test_choice(budget: float | None, drop: float | None, name: str) -> None:
    assert choose(SOME, budget_ms=budget, max_drop=drop).name == name


def test_a_budget_compares_what_was_measured_in_different_minutes() -> None:
    """The machine was three times slower while ``a`` was measured, and the full model beside it too."""
    slow = [
        outcome("full", 1, 0, full_ms=10.0),
        outcome("a", 2, 1, latency=15.0, full_ms=30.0),
        outcome("b", 1.25, 0.5, latency=8.0, full_ms=10.0),
    ]
    assert comparable(slow) == {"full": 10, "a": 5, "b": 8}
    assert choose(slow, budget_ms=6).name == "a"
    assert choose(slow, budget_ms=9).name == "b"
    with pytest.raises(InputError, match=r"within 4 ms: the fastest, a, takes 5 ms"):
        choose(slow, budget_ms=4)
    alone = [dataclasses.replace(one, full_ms=None) for one in slow]
    assert comparable(alone) == comparable(slow)


def test_each_latency_stands_beside_that_of_the_full_model_or_there_is_none() -> None:
    pair = [outcome("full", 1, 0, full_ms=10.0), outcome("a", 2, 1, latency=15.0, full_ms=30.0)]
    shown = table(pair, "t")
    assert shown.header[:4] == ("candidate", "p50 ms", "full beside it, ms", "speedup")
    assert [row[:3] for row in shown.rows] == [("full", "10.0", "10.0"), ("a", "15.0", "30.0")]
    older = table([pair[0], dataclasses.replace(pair[1], full_ms=None)], "t")
    assert not any("ms" in name for name in older.header)
    assert all(len(row) == len(older.header) for row in older.rows)


def test_nothing_within_the_bounds() -> None:
    with pytest.raises(InputError, match=r"within 1 ms: the fastest, c, takes 5 ms"):
        choose(SOME, budget_ms=1)
    with pytest.raises(InputError, match=r"within 5 ms drops by 0\.5 points at most: the nearest, c, drops by 2"):
        choose(SOME, budget_ms=5, max_drop=0.5)
    with pytest.raises(InputError, match=r"no candidate drops by -1 points"):
        choose(SOME, max_drop=-1)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("points", [[(1, 0)], [(3, 2), (3, 2), (9, -5), (1, 5), (1, 4)]], ids=["one", "some"])
def test_plot_is_xml_with_every_name_inside(points: list[tuple[int, int]], labelled: bool) -> None:
    none = {} if labelled else {"top1": None, "top1_low": None, "top1_high": None}
    outcomes = [outcome(f"<{i}>$x$", speed, drop, **none) for i, (speed, drop) in enumerate(points)]
    outcomes[0] = dataclasses.replace(outcomes[0], speedup_low=None, speedup_high=None)
    root = ElementTree.fromstring(plot(outcomes, "a & b"))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert all(one.name in texts for one in outcomes)
    assert "a & b" in texts
    assert any("top-1" in (text or "") for text in texts) == labelled
    dots = [element for element in root.iter() if element.get("id", "").startswith("dot ")]
    assert [dot.get("id") for dot in dots] == [f"dot {one.name}" for one in outcomes]


def test_the_front_is_a_line_and_every_outcome_a_dot_where_its_figures_are() -> None:
    axes = draw(SOME, "t").axes[0]
    drawn = [(line.get_gid(), line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
    assert drawn[0][1:] == ([0.9, 1, 1.5, 2], pytest.approx([80.2, 80, 79.6, 78]))
    dots = {gid: (x, y) for gid, [x, *_], [y, *_] in drawn if gid}
    assert dots == {f"dot {one.name}": (one.speedup, pytest.approx(100 * (one.top1 or 0))) for one in SOME}
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert all(left < x < right and bottom < y < top for _, xs, ys in drawn for x in xs for y in ys)


def test_several_methods_have_a_front_each_over_what_was_counted() -> None:
    some = [
        outcome("full", 1, 0, macs=8, full_macs=8),
        outcome("evo_stage_0.5_0.5", 3, 1, macs=4, full_macs=8, method="evo"),
        outcome("evo_stage_0.7_0.5", 9, 2, macs=5, full_macs=8, method="evo"),
        outcome("tome_r_4", 2, 3, macs=2, full_macs=8, method="tome"),
    ]
    figure = draw(some, "t", "macs")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["evo"].get_xdata().tolist() == [
        1,
        2,
    ]  # the other does more, whatever the clock said
    assert lines["tome"].get_xdata().tolist() == [1, 4]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["evo", "tome"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == ["0.5", "evo_stage_0.7_0.5", "full", "r 4"]
    header, rows = table(some, "t").header, table(some, "t").rows
    assert [row[header.index("MACs %")] for row in rows] == ["100.0", "50.0", "62.5", "25.0"]
    uncounted = draw([*some, outcome("b", 1, 0)], "t", "macs").axes[0]
    assert "speedup" in uncounted.get_xlabel()


def test_the_same_outcomes_give_the_same_picture() -> None:
    assert plot(SOME, "t") == plot(SOME, "t")


def test_names_of_close_candidates_stand_apart() -> None:
    figure = draw([outcome(f"stage_0.{i}_0.{i}", 1 + 0.01 * i, 0.1 * (i % 2)) for i in range(6)], "t")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent().extents for text in axes.texts]
    assert len(boxes) == 6
    dots = axes.transData.transform([(1 + 0.01 * i, 80 - 0.1 * (i % 2)) for i in range(6)])
    frame = axes.get_window_extent().extents
    for i, (left, bottom, right, top) in enumerate(boxes):
        assert frame[0] <= left < right <= frame[2]
        for a, b, c, d in [*boxes[:i], *((x - 4, y - 4, x + 4, y + 4) for x, y in dots)]:
            assert not (left < c and a < right and bottom < d and b < top)
