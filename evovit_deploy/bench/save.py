"""Writes a page and its plots, each whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, OutputError, translate
from ..storage.files import check_writable, printable, write_bytes
from ..storage.ownership import Ours, check_replaceable, is_page, is_picture, remove_stale
from .page import WIDE, page
from .plots import latency_plot, png, speedup_plot
from .report import BenchReport

__all__ = ["check_output", "save_page"]


PAGE, PLOT = is_page("bench"), is_picture("bench")


def check_output(path: Path, *, force: bool = False) -> None:
    """Raise now what :func:`save_page` would raise after the work: a wrong name, or a place that cannot be written."""
    place = _page(path)
    if place == path or path.is_dir():
        check_replaceable({place: PAGE}, force=force)
    else:
        check_writable(path)  # a folder that will be made


def _page(path: Path) -> Path:
    """The page itself: the file, or ``index.html`` in a folder that is there or has a name without a suffix."""
    if path.suffix == ".html" and not path.is_dir():
        return path
    if path.is_dir() or not path.suffix:
        return path / "index.html"
    raise InputError(
        f"{printable(path)} names neither a folder nor a file that ends in .html; the page and its plots are written together: "
        "-o report, or -o report.html"
    )


def save_page(
    path: Path, reports: Sequence[BenchReport], budget_ms: float | None = None, *, force: bool = False
) -> list[Path]:
    """Write ``X.html``, and for each report ``X-N-latency.png`` and ``X-N-speedup.png``; plots of an earlier page go.

    Args:
        path: The page, ``X.html``, or a folder (made if missing) for ``index.html`` and its plots.
        reports: In the order they are shown.
        budget_ms: As for :func:`.answers.answers`.
        force: Replace files that evovit did not write; its own are replaced always.

    Returns:
        What was written.

    Raises:
        OutputError: A file cannot be written, or would replace one that evovit did not write.
    """
    page_of = _page(path)
    if page_of != path:
        with translate(OutputError, f"cannot make the folder {printable(path)}", OSError):
            path.mkdir(exist_ok=True)
    path, plots = page_of, {}
    for number, report in enumerate(reports, 1):
        if report.points:
            plots[path.with_name(f"{path.stem}-{number}-latency.png")] = latency_plot, report
        if any(point.speedup for point in report.points):
            plots[path.with_name(f"{path.stem}-{number}-speedup.png")] = speedup_plot, report
    places: dict[Path, Ours] = {path: PAGE, **dict.fromkeys(plots, PLOT)}
    check_replaceable(places, force=force)
    write_bytes(path, page(reports, budget_ms).encode())
    for image, (plot, report) in plots.items():
        write_bytes(image, png(plot(report, *WIDE)))
    earlier = re.compile(re.escape(path.stem) + r"-[0-9]+-(latency|speedup)\.png")
    remove_stale((each for each in path.parent.iterdir() if earlier.fullmatch(each.name)), PLOT, plots)
    return list(places)
