"""The README's figures come from records."""

import dataclasses
from pathlib import Path

import pytest

from evovit_deploy.bench import read_records
from evovit_deploy.bench.markdown import figures, update
from evovit_deploy.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def records():
    files = sorted((ROOT / "bench" / "results").glob("*.jsonl"))
    return [report for file in files for report in read_records(file)]


def test_the_readme_shows_what_the_records_hold():
    """No figure in the README was typed by hand: writing it again from the records changes nothing."""
    recorded = records()
    assert recorded, "bench/results holds no record"
    assert figures(recorded) in (ROOT / "README.md").read_text()


def test_every_point_has_its_row_or_stands_beside_it():
    for report in records():
        rows = [line.split(" | ") for line in figures([report]).splitlines()]
        for point in report.points:
            if point.subject == report.baseline:
                beside = [row for row in rows if len(row) > 6 and (row[1], row[5]) == (str(point.batch), point.subject)]
                assert beside, point
                assert all(row[6] == f"{point.p50_ms:.1f}" for row in beside)
            else:
                own = [f"{value:.1f}" for value in (point.p50_ms, point.p90_ms, point.images_per_second)]
                starts = f"| {point.subject}"
                assert any(row[0].startswith(starts) and row[1:5] == [str(point.batch), *own] for row in rows), point


def test_runs_of_one_environment_share_a_table_whatever_their_suite():
    found = records()
    one, other = found[0], dataclasses.replace(found[0], suite="another")
    text = figures([one, other])
    assert text.count("| model |") == 1
    assert len(text.splitlines()) == len(figures([one]).splitlines()) + sum(
        point.subject != one.baseline for point in one.points
    )
    moved = dataclasses.replace(one, environment={**one.environment, "cpu": "another"})
    assert figures([one, moved]).count("| model |") == 2


def test_update_replaces_only_what_is_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures:begin (x) -->\nold\n<!-- figures:end -->\nafter\n")
    update(readme, [])
    assert readme.read_text() == "before\n<!-- figures:begin (x) -->\n\n\n\n<!-- figures:end -->\nafter\n"
    readme.write_text("no markers")
    with pytest.raises(InputError, match="figures:begin"):
        update(readme, [])
    assert readme.read_text() == "no markers"
    with pytest.raises(InputError, match="cannot read"):
        update(tmp_path / "none.md", [])
