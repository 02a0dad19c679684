"""The page and its plots."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from evovit_deploy.bench.page import page
from evovit_deploy.bench.plots import latency_plot, png, speedup_plot
from evovit_deploy.bench.save import check_output, save_page
from evovit_deploy.errors import EngineError, InputError
from tests.bench.made import point, report, subject


def test_the_page_asks_for_nothing_from_outside() -> None:
    text = page([report(command="evovit bench small.onnx")])
    for address in re.findall(r"""(?:src|srcset|href)=["']?([^"'>\s]+)""", text):
        assert address.startswith("data:"), address
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "<script" not in text


def test_the_page_holds_every_figure_and_answer() -> None:
    text = page([report()], budget_ms=61)
    for said in (
        "1.500 [1.450, 1.550]",
        "225.00",
        "from batch 8 on",
        "Test CPU",
        "not evaluated",
        "evo in 61 ms: batch 8",
    ):
        assert said in text, said
    assert text.count("<figure>") == 2
    assert text.count('<source media="(max-width: 40rem)"') == 2


def test_names_are_escaped() -> None:
    odd = '<b>&"x"'
    text = page([report(point(odd, 1, 10), subjects=(subject(odd),), baseline=None, command="<i>")])
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;" in text
    assert text.count("<figure>") == 1  # without a baseline there is no plot of speedups


def test_plots_hold_the_points() -> None:
    axes = latency_plot(report(), 6, 4).axes[0]
    lines = {tuple(line.get_xdata()) for line in axes.get_lines()}
    assert (1000 / 10.0, 8000 / 40.0, 32000 / 150.0) in lines
    assert {text.get_text() for text in axes.texts} == {"1", "8", "32"}
    axes = speedup_plot(report(), 6, 4).axes[0]
    assert any(list(line.get_ydata()) == [1.02, 1.4, 1.5] for line in axes.get_lines())
    assert any(text.get_text() == "MAC ratio 1.50" for text in axes.texts)
    assert png(latency_plot(report(), 3, 3)).startswith(b"\x89PNG")


def test_files(tmp_path: Path) -> None:
    written = save_page(tmp_path / "r.html", [report(), report(point("evo", 1, 10), baseline=None)])
    assert [path.name for path in written] == ["r.html", "r-1-latency.png", "r-1-speedup.png", "r-2-latency.png"]
    assert all(path.stat().st_size > 1000 for path in written)
    with pytest.raises(InputError, match=r"does not end in \.html"):
        check_output(tmp_path / "r.png")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EngineError, match=r"needs matplotlib, .* pip install -e '\.\[report\]' in a checkout"):
        page([report()])
