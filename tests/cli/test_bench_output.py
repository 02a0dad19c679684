"""What `evovit bench` prints: the answer first, and nothing broken in a narrow terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from evovit_deploy.cli import _bench
from tests.bench.made import report


def printed(monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True, highlight=False)
    monkeypatch.setattr(_bench, "out", lambda: console)
    _bench.print_report(report(), 61.0)
    console.file.seek(0)
    text = console.file.read()
    for code in ("\x1b[1m", "\x1b[3m", "\x1b[0m"):
        text = text.replace(code, "")
    return text.splitlines()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_answer_stands_first_and_the_footnotes_last(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    lines = printed(monkeypatch, 200, terminal)
    assert lines[0].startswith("evo: 1.50x faster than deit at batch 32")
    assert lines[1].startswith("evo in 61 ms: batch 8")
    table = next(number for number, line in enumerate(lines) if "p50 ms" in line)
    meaning = next(number for number, line in enumerate(lines) if line.startswith("-> "))
    where = next(number for number, line in enumerate(lines) if line.startswith("Test CPU"))
    assert 1 < table < meaning < where
    assert not any(line.startswith("-> ") for line in lines[where:])


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_table_that_does_not_fit_is_shown_row_by_row(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = printed(monkeypatch, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "┃" not in text
    row = text[text.index("batch 8, evo\n") : text.index("batch 8, deit\n")]
    for pair in ("p50 ms 40.00", "p90 ms 44.00", "img/s 200", "speedup 1.400 [1.350, 1.450]", "stable yes"):
        assert pair in row, pair


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 60, terminal=False)
    assert any("┃" in line and "p50 ms" in line and "stable" in line for line in lines)
