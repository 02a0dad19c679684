"""The figures of the README and of docs/results.md come from records."""

import dataclasses
from pathlib import Path

import pytest

from evovit_deploy.bench import BenchReport, read_records
from evovit_deploy.bench.markdown import figures, summary, update
from evovit_deploy.errors import InputError
from tests.bench import made

ROOT = Path(__file__).resolve().parents[2]


def records():
    files = sorted((ROOT / "bench" / "results").glob("*.jsonl"))
    return [report for file in files for report in read_records(file)]


def test_the_pages_show_what_the_records_hold():
    """No figure was typed by hand: writing it again from the records changes nothing."""
    recorded = records()
    assert recorded, "bench/results holds no record"
    assert figures(recorded) in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert summary(recorded) in (ROOT / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_the_summary_has_one_row_for_each_model_on_each_machine():
    recorded = records()
    shown = rows(summary(recorded))[1:]
    assert len(shown) == len({(row[0], row[1]) for row in shown})
    assert {row[0] for row in shown} == {
        point.subject
        for report in recorded
        for point in report.points
        if point.subject != report.baseline and (report.baseline or "").endswith(" twin")
    }
    for row in shown:
        smallest, largest = (int(cell.split(":")[0].strip(" |")) for cell in row[2:])
        assert smallest < largest


def test_every_point_has_its_row_or_stands_beside_it():
    for report in records():
        shown = rows(figures([report]))[1:]
        for point in report.points:
            ms = f"{point.p50_ms:.{1 if point.p50_ms >= 10 else 2}f}"
            if point.subject == report.baseline:
                assert any((row[1], row[5]) == (str(point.batch), ms) for row in shown), point
            else:
                assert any(row[:3] == [point.subject, str(point.batch), ms] for row in shown), point


def test_the_readme_has_one_row_for_each_model_and_batch_of_a_machine():
    text = figures(records())
    for table in text.split("| model |")[1:]:
        keys = [tuple(row[i] for i in (0, 1, 4)) for row in rows("| model |" + table)[1:]]
        assert len(keys) == len(set(keys)) > 0
    for hardware in ("AMD EPYC", "Intel(R) Xeon(R)", "NVIDIA H100"):
        assert hardware in text


def measured(day: int, p50: float, stable: bool | None, other: bool | None = True) -> BenchReport:
    points = (made.point("evo", 8, p50, (1.5, 1.4, 1.6), stable=stable), made.point("deit", 8, 2 * p50, stable=other))
    return made.report(*points, recorded=f"2026-01-0{day}T00:00:00+00:00")


@pytest.mark.parametrize(
    ("runs", "picked"),
    [
        ([measured(1, 11, True), measured(2, 12, True)], "12.0"),
        ([measured(2, 12, True), measured(1, 11, True)], "12.0"),  # whatever the order of the files
        ([measured(1, 11, True), measured(2, 12, False)], "11.0"),
        ([measured(1, 11, True), measured(2, 12, True, other=False)], "11.0"),
        ([measured(1, 11, False), measured(2, 12, None)], "12.0"),
    ],
)
def test_the_newest_stable_measurement_is_shown(runs, picked):
    text = figures(runs)
    [_, row] = rows(text)
    assert row[:3] == ["evo", "8", picked]
    assert f"recorded 2026-01-0{int(float(picked)) - 10} with" in text


def test_other_hardware_backends_precisions_and_baselines_are_other_rows():
    one = measured(1, 11, True)
    moved = dataclasses.replace(one, environment={**one.environment, "cpu": "another"})
    half = dataclasses.replace(one, subjects=tuple(dataclasses.replace(s, precision="fp16") for s in one.subjects))
    torch = dataclasses.replace(one, subjects=tuple(dataclasses.replace(s, backend="pytorch") for s in one.subjects))
    assert figures([one, moved, half, torch]).count("| model |") == 4
    assert figures([one, dataclasses.replace(one, suite="another")]).count("| evo |") == 1
    stock = made.report(made.point("evo", 8, 11), made.point("x stock", 8, 20), baseline="x stock")
    assert [row[4] for row in rows(figures([one, stock]))[1:]] == ["deit", "stock"]


def test_random_weights_are_named_also_where_only_a_note_says_so():
    assert "random weights" not in figures([measured(1, 11, True)])
    noted = dataclasses.replace(measured(1, 11, True), notes=("evo: random weights: good for measuring speed",))
    assert "224 px, random weights, recorded" in figures([noted])


def test_update_replaces_only_what_is_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures:begin (x) -->\nold\n<!-- figures:end -->\nafter\n")
    update(readme, [])
    assert readme.read_text() == "before\n<!-- figures:begin (x) -->\n\n\n\n<!-- figures:end -->\nafter\n"
    readme.write_text("no markers")
    with pytest.raises(InputError, match="figures:begin"):
        update(readme, [])
    assert readme.read_text() == "no markers"
    with pytest.raises(InputError, match="no such file"):
        update(tmp_path / "none.md", [])
