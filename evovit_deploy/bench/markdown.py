"""Reports as Markdown, and the README's figures between their markers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
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
    """Markdown for the README: one table for each environment, a row for each model and batch beside its baseline."""
    groups: dict[str, list[BenchReport]] = {}
    for report in reports:
        groups.setdefault(title(dataclasses.replace(report, suite="")), []).append(report)
    return "\n\n".join(_group(name, group) for name, group in groups.items())


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


def _group(name: str, reports: Sequence[BenchReport]) -> str:
    header = (
        "model", "batch", "p50 ms", "p90 ms", "images/s", "baseline", "its p50 ms", "speedup [95% interval]", "MAC ratio",
        "stable",
    )  # fmt: skip
    rows = [row for report in reports for row in _rows(report)]
    more = [f"{table.title}:\n\n{markdown(table)}" for report in reports for table in tables(report)[1:]]
    return "\n\n".join([f"{name}:\n\n{markdown(Table(name, header, tuple(rows)))}", *more])


def _rows(report: BenchReport) -> Iterator[tuple[str, ...]]:
    """A row for each point but those of the baseline, which stand beside the others."""
    of_baseline = {point.batch: point for point in report.points if point.subject == report.baseline}
    macs = {subject.label: subject.facts.macs for subject in report.subjects}
    for point in report.points:
        if point.subject == report.baseline:
            continue
        other = of_baseline.get(point.batch)
        ideal, own = macs.get(report.baseline or ""), macs[point.subject]
        random = " (random weights)" if report.subject(point.subject).random_weights else ""
        yield (
            point.subject + random,
            str(point.batch),
            f"{point.p50_ms:.1f}",
            f"{point.p90_ms:.1f}",
            f"{point.images_per_second:.1f}",
            report.baseline or MISSING,
            MISSING if other is None else f"{other.p50_ms:.1f}",
            _speedup(point),
            f"{ideal / own:.2f}" if ideal and own else MISSING,
            "yes" if point.stable and (other is None or other.stable) else "no",
        )


def _speedup(point: Point) -> str:
    if point.speedup is None:
        return "not measured"
    found = point.speedup
    interval = f"{found.low:.2f}, {found.high:.2f}" if found.low is not None and found.high is not None else MISSING
    return f"{found.ratio:.2f} [{interval}]"
