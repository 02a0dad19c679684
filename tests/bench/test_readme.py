"""The README's figures come from records."""

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


def test_every_point_has_its_row():
    for report in records():
        text = figures([report])
        for point in report.points:
            assert f"| {point.batch} | {point.subject}" in text
            assert f"| {point.p50_ms:.1f} | {point.p90_ms:.1f} | {point.images_per_second:.1f} |" in text


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
