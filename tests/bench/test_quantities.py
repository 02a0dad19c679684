"""A quantity is one row: whatever shows or judges figures reads the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from evovit_deploy.bench import quantities
from evovit_deploy.bench.comparison import change_table, compare
from evovit_deploy.bench.markdown import figures
from evovit_deploy.bench.page import page
from evovit_deploy.bench.quantities import MS, PER_SECOND, SPEEDUP, TIMES, Quantity, shown
from evovit_deploy.bench.report import BenchReport, Point
from evovit_deploy.bench.text import tables
from tests.bench.made import point, report

WORST = Quantity("max_ms", "worst latency", "worst ms", MS, "lower")


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[[Quantity], None]:
    def added(row: Quantity) -> None:
        monkeypatch.setattr(quantities, "QUANTITIES", (*quantities.QUANTITIES, row))

    return added


@pytest.mark.parametrize("known_only", [False, True])
def test_a_new_row_is_in_the_text_in_markdown_on_the_page_and_in_comparisons(
    add: Callable[[Quantity], None], known_only: bool
) -> None:
    runs = [report(point("evo", 1, 10.0), baseline=None)], [report(point("evo", 1, 12.0), baseline=None)]
    before = tables(runs[0][0])[0].header, compare(*runs)
    add(dataclasses.replace(WORST, known_only=known_only))
    table = tables(runs[0][0])[0]
    assert table.header == (*before[0], "worst ms")
    assert table.rows[0][-1] == "20.00"
    header, _, row = figures(runs[0]).splitlines()[2:5]
    assert header.endswith("| worst ms |")
    assert row.endswith("| 20.0 |")
    assert 'data-name="worst ms">20.00</td>' in page(runs[0])
    changes = compare(*runs)
    assert changes[: len(before[1])] == before[1]
    (change,) = changes[len(before[1]) :]
    assert (change.quantity, change.before, change.after, change.verdict) == ("worst latency", 20, 24, "slower")
    assert change_table(changes).rows[-1][2:6] == ("worst latency", "20.000 ms", "24.000 ms", "+20.0%")


@pytest.mark.parametrize(("better", "verdict"), [("lower", "slower"), ("higher", "faster"), (None, None)])
def test_which_way_is_better_judges(add: Callable[[Quantity], None], better: str | None, verdict: str | None) -> None:
    add(dataclasses.replace(WORST, better=better))  # type: ignore[arg-type]
    found = compare([report(point("evo", 1, 10.0))], [report(point("evo", 1, 12.0))])
    assert {change.quantity: change.verdict for change in found}.get(WORST.name) == verdict


def test_a_row_that_no_point_has_a_value_for_is_left_out_where_it_says_so(add: Callable[[Quantity], None]) -> None:
    def never(report: BenchReport, point: Point) -> None:
        return None

    add(dataclasses.replace(WORST, of=never))
    assert tables(report())[0].rows[0][-1] == "—"
    add(dataclasses.replace(WORST, label="unknown", of=never, known_only=True))
    assert "unknown" not in tables(report())[0].header


def test_values_are_read_where_the_record_holds_them() -> None:
    found = report()
    measured = (found, found.points[0])
    values = {row.label: row.value(*measured) for row in shown("text", [measured]) if row.unit.name}
    assert values["p50 ms"] == 10.0
    assert values["img/s"] == 100.0
    assert SPEEDUP.value(*measured) == 1.02
    assert "device ms" not in values  # nobody measured it


@pytest.mark.parametrize(
    ("unit", "value", "text", "brief"),
    [(MS, 9.87654, "9.877", "9.88"), (MS, 10.456, "10.46", "10.5"), (PER_SECOND, 99.94, "99.9", "99.9"),
     (PER_SECOND, 100.4, "100", "100"), (TIMES, 1.2345, "1.234", "1.23"), (MS, None, "—", "—")],
)  # fmt: skip
def test_digits(unit: quantities.Unit, value: float | None, text: str, brief: str) -> None:
    assert unit.show(value) == text
    assert unit.show(value, brief=True) == brief


def test_names_of_compared_rows_are_different() -> None:
    names = [row.name for row in shown("compare")]
    assert len(set(names)) == len(names)
    assert SPEEDUP.name in names
