"""Reports as Markdown, and the README's figures between their markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..files import write_bytes
from .report import BenchReport, Point
from .route import KINDS
from .text import MISSING, Table, per_second, tables

__all__ = ["figures", "markdown", "title", "update"]

BEGIN, END = "<!-- figures:begin", "<!-- figures:end -->"


def title(report: BenchReport) -> str:
    """What was measured where, in a line."""
    suite = f"suite {report.suite}, " if report.suite else ""
    ended = ", interrupted" if report.interrupted else ""
    day = f", recorded {report.recorded[:10]}" if report.recorded else ""
    return f"{suite}{_place(report)}{day} with {_software(report)}{ended}"


def _place(report: BenchReport) -> str:
    """Backend, hardware, precision and image size: what a table of several runs has in common."""
    where, first = report.environment, report.subjects[0]
    gpu = next((gpu["name"] for gpu in where.get("gpus", ())), "GPU unknown")
    hardware = f"{where['cpu']}, {where['threads']} threads" if first.device == "cpu" else gpu
    images = "" if first.input == "float32" else f", {first.input} images"
    return f"{first.backend} on {first.device} ({hardware}), {first.precision}, {first.image_size} px{images}"


def _software(report: BenchReport) -> str:
    versions = report.environment["versions"]
    names = ("onnxruntime", "torch") if report.subjects[0].backend == "onnxruntime" else ("torch",)
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def figures(reports: Iterable[BenchReport]) -> str:
    """Markdown for the README: a table for each backend on each machine, a row for each model and batch beside its baseline.

    Of several measurements of one row the newest counts of those that are stable on both sides, or the newest if none is.
    """
    groups: dict[str, list[BenchReport]] = {}
    for report in sorted(reports, key=lambda report: report.recorded):
        groups.setdefault(_place(report), []).append(report)
    return "\n\n".join(_group(name, groups[name]) for name in sorted(groups, key=lambda name: groups[name][0].recorded))


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


def _group(place: str, reports: Sequence[BenchReport]) -> str:
    """The table of one place; reports are in the order of their time."""
    header = (
        "model", "batch", "p50 ms", "images/s", "baseline", "its p50 ms", "speedup [95% interval]", "MAC ratio",
        "stable",
    )  # fmt: skip
    picked: dict[tuple[str, str, int], tuple[BenchReport, Point]] = {}
    for report in reports:
        for point in report.points:
            key = (point.subject, report.baseline or "", point.batch)
            if point.subject != report.baseline and (
                key not in picked or _settled(report, point) >= _settled(*picked[key])
            ):
                picked[key] = (report, point)
    order = list(dict.fromkeys(model for model, _, _ in picked))
    rows = [_row(*picked[key]) for key in sorted(picked, key=lambda key: (order.index(key[0]), key[1:]))]
    shown = [report for report in reports if any(report is one for one, _ in picked.values())] or reports[-1:]
    days = sorted({report.recorded[:10] for report in shown if report.recorded})
    when = f", recorded {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    software = "; ".join(dict.fromkeys(map(_software, shown)))
    random = ", random weights" if all(_random(*one) for one in picked.values()) else ""
    text = f"{place}{random}{when} with {software}:\n\n{markdown(Table(place, header, tuple(rows)))}"
    more = [f"{table.title}:\n\n{markdown(table)}" for report in shown for table in tables(report)[1:]]
    return "\n\n".join([text, *more])


def _settled(report: BenchReport, point: Point) -> bool:
    """Whether both sides of a row settled."""
    other = _beside(report, point)
    return bool(point.stable and (other is None or other.stable))


def _beside(report: BenchReport, point: Point) -> Point | None:
    """The baseline's point at the same batch size."""
    return next((p for p in report.points if (p.subject, p.batch) == (report.baseline, point.batch)), None)


def _random(report: BenchReport, point: Point) -> bool:
    """Whether the weights are random: a PyTorch module of an older record says so in its notes only."""
    said = any(note.startswith(f"{point.subject}: random weights") for note in report.notes)
    return bool(report.subject(point.subject).random_weights) or said


def _row(report: BenchReport, point: Point) -> tuple[str, ...]:
    other, macs = _beside(report, point), {subject.label: subject.facts.macs for subject in report.subjects}
    ideal, own = macs.get(report.baseline or ""), macs[point.subject]
    return (
        point.subject,
        str(point.batch),
        _ms(point.p50_ms),
        per_second(point.images_per_second),
        _kind(report.baseline),
        MISSING if other is None else _ms(other.p50_ms),
        _speedup(point),
        f"{ideal / own:.2f}" if ideal and own else MISSING,
        "yes" if _settled(report, point) else "no",
    )


def _kind(baseline: str | None) -> str:
    """A label of the baseline without the name of the model, which is that of the row."""
    last = (baseline or MISSING).rpartition(" ")[2]
    return last if last in KINDS else baseline or MISSING


def _ms(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2}f}"


def _speedup(point: Point) -> str:
    found = point.speedup
    if found is None:
        return "not measured"
    interval = MISSING if found.low is None or found.high is None else f"{found.low:.2f}, {found.high:.2f}"
    return f"{found.ratio:.2f} [{interval}]"
