"""Reports as one HTML page that asks for nothing: styles and plots are inside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..storage.ownership import mark
from .answers import FIRST, answers
from .markdown import title
from .plots import latency_plot, png, speedup_plot
from .report import BenchReport
from .summary import summary
from .text import Table, lines, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

Plot = Callable[[BenchReport, float, float], "Figure"]

WIDE, NARROW = (6.4, 4.4), (4.2, 4.4)  # inches


def page(
    reports: Sequence[BenchReport],
    budget_ms: float | None = None,
    *,
    command: str = "bench",
    about: Sequence[str] = (),
    above: Sequence[Table] = (),
) -> str:
    """Return one HTML document, made from ``page.html``.

    Args:
        reports: In the order they are shown.
        budget_ms: As for :func:`.answers.answers`.
        command: That writes it, without ``evovit``.
        about, above: Paragraphs and tables that come first.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("evovit_deploy.bench", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    overview = summary(reports) if len(reports) > 1 else None
    return environment.get_template("page.html").render(
        mark=mark(command),
        about=about,
        tables=[*above, *([] if overview is None else [overview])],
        sections=[_section(report, budget_ms) for report in reports],
        zip=zip,
    )


def _section(report: BenchReport, budget_ms: float | None) -> dict[str, Any]:
    found = answers(report, budget_ms)
    plots = []
    if report.points:
        caption = "Latency against throughput; the number at each mark is the batch size."
        plots.append(_picture(latency_plot, report, caption))
    if any(point.speedup for point in report.points):
        caption = (
            f"Speedup over {report.baseline} against batch size, with its 95% interval; dashed: the ratio of "
            f"multiply-accumulates."
        )
        plots.append(_picture(speedup_plot, report, caption))
    return {
        "title": title(report),
        "first": [answer.text for answer in found if answer.question in FIRST],
        "rest": [answer.text for answer in found if answer.question not in FIRST],
        "plots": plots,
        "tables": tables(report),
        "lines": lines(report),
        "command": report.command,
    }


def _picture(plot: Plot, report: BenchReport, caption: str) -> dict[str, str]:
    """A plot drawn twice: a picture made for a wide window has letters too small for a narrow one."""
    wide, narrow = (_data(png(plot(report, *size))) for size in (WIDE, NARROW))
    return {"wide": wide, "narrow": narrow, "caption": caption}


def _data(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
