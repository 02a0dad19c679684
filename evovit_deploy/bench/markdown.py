"""Reports as Markdown, and the README's figures between their markers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from ..files import write_bytes
from .report import BenchReport, Point
from .text import MISSING, Table, tables

__all__ = ["figures", "markdown", "title", "update"]

BEGIN, END = "<!-- figures:begin", "<!-- figures:end -->"


def title(report: BenchReport) -> str:
    """What was measured where, in a line."""
    where, first = report.environment, report.subjects[0]
    versions = where["versions"]
    software = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "torch") if name in versions)
    gpu = next((gpu["name"] for gpu in where.get("gpus", ())), "GPU unknown")
    place = f"{where['cpu']}, {where['threads']} threads" if first.device == "cpu" else gpu
    day = f", recorded {report.recorded[:10]}" if report.recorded else ""
    suite = f"suite {report.suite}, " if report.suite else ""
    ended = ", interrupted" if report.interrupted else ""
    return (
        f"{suite}{first.backend} on {first.device} ({place}), {first.precision}, {first.image_size} px{day} with "
        f"{software}{ended}"
    )


def figures(reports: Iterable[BenchReport]) -> str:
    """Markdown for the README: a short table for each report, with the environment it was measured in."""
    return "\n\n".join(_short(report) for report in reports)


def update(readme: Path, reports: Iterable[BenchReport]) -> None:
    """Replace what stands between the markers of ``readme``.

    Raises:
        InputError: It cannot be read, or the markers are missing.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {readme}: {getattr(error, 'strerror', None) or error}.") from error
    start, stop = text.find(BEGIN), text.find(END)
    if start < 0 or stop < start:
        raise InputError(f"{readme} has no lines {BEGIN} ... --> and {END} to write between.")
    start = text.index("\n", start) + 1
    write_bytes(readme, (text[:start] + "\n" + figures(reports) + "\n\n" + text[stop:]).encode())


def markdown(table: Table) -> str:
    """A table, numbers to the right."""
    left = table.left
    rule = "|".join("---" if name in left else "---:" for name in table.header)
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(["| " + " | ".join(table.header) + " |", f"|{rule}|", *rows])


def _short(report: BenchReport) -> str:
    header = ["batch", "model", "p50 ms", "p90 ms", "images/s", "speedup [95% interval]", "stable"]
    rows = ["| " + " | ".join(header) + " |", "|---:|---|---:|---:|---:|---|---|"]
    for point in report.points:
        random = ", random weights" if report.subject(point.subject).random_weights else ""
        cells = (
            str(point.batch),
            point.subject + random,
            f"{point.p50_ms:.1f}",
            f"{point.p90_ms:.1f}",
            f"{point.images_per_second:.1f}",
            _against(report, point),
            "yes" if point.stable else "no",
        )
        rows.append("| " + " | ".join(cells) + " |")
    more = [f"{table.title}:\n\n{markdown(table)}" for table in tables(report)[1:]]
    return "\n\n".join([f"{title(report)}:\n\n" + "\n".join(rows), *more])


def _against(report: BenchReport, point: Point) -> str:
    if point.subject == report.baseline:
        return "baseline"
    if point.speedup is None:
        return "not measured"
    found = point.speedup
    interval = f"{found.low:.2f}, {found.high:.2f}" if found.low is not None and found.high is not None else MISSING
    return f"{found.ratio:.2f} [{interval}]"
