"""Writes a page and its plots, each whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import check_writable, write_bytes
from .page import WIDE, page
from .plots import latency_plot, png, speedup_plot
from .report import BenchReport

__all__ = ["check_output", "save_page"]


def check_output(path: Path) -> None:
    """Raise now what :func:`save_page` would raise after the work: another suffix, or a place that cannot be written."""
    if path.suffix != ".html":
        raise InputError(f"{path} does not end in .html; the page and its plots are written together: -o report.html")
    check_writable(path)


def save_page(path: Path, reports: Sequence[BenchReport], budget_ms: float | None = None) -> list[Path]:
    """Write ``X.html``, and for each report ``X-N-latency.png`` and ``X-N-speedup.png``; returns what was written."""
    written = [path]
    write_bytes(path, page(reports, budget_ms).encode())
    for number, report in enumerate(reports, 1):
        plots = {"latency": latency_plot} if report.points else {}
        if any(point.speedup for point in report.points):
            plots["speedup"] = speedup_plot
        for name, plot in plots.items():
            image = path.with_name(f"{path.stem}-{number}-{name}.png")
            write_bytes(image, png(plot(report, *WIDE)))
            written.append(image)
    return written
