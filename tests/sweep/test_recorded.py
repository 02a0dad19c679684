"""The front in docs/results.md comes from the recorded sweep, and so does its plot."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from evovit_deploy.bench.markdown import markdown
from evovit_deploy.sweep.plot import plot
from evovit_deploy.sweep.runner import read_outcomes
from evovit_deploy.sweep.table import table

ROOT = Path(__file__).resolve().parents[2]


def words(svg: str) -> list[str | None]:
    """What a picture says, and what it shows a dot for."""
    elements = list(ElementTree.fromstring(svg).iter())
    texts = sorted(e.text or "" for e in elements if e.tag.endswith("text"))
    return [*texts, *(e.get("id") for e in elements if e.get("id", "").startswith("dot "))]


def test_table_and_plot_of_the_page_are_those_of_the_record() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = text[text.index("<!-- front:begin") : text.index("<!-- front:end")]
    [record] = (ROOT / "bench" / "results" / "sweep").glob("*.jsonl")
    outcomes = read_outcomes(record)
    title = shown.splitlines()[2].removesuffix(":")
    assert f"{title}:\n\n{markdown(table(outcomes, title))}\n" in shown
    shipped = record.with_suffix(".svg").read_text(encoding="utf-8")
    assert words(shipped) == words(
        plot(outcomes, title, "macs")
    )  # where they stand depends on the version of matplotlib
    assert f"]({record.with_suffix('.svg').relative_to(ROOT).as_posix()})" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    link = record.with_suffix(".svg").relative_to(ROOT).as_posix()
    assert f"](../{link})" in text
