"""Reports as Markdown, and the figures in Markdown files between their markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..engines.registry import find
from ..errors import InputError
from ..storage.files import write_bytes
from ..storage.missing import no_such_file
from .quantities import MISSING, PER_SECOND, Measured, settled, shown
from .report import BenchReport, Point
from .text import Table, tables

__all__ = ["figures", "markdown", "summary", "title", "update"]

Row = tuple[str, str, int]  # model, baseline, batch
Picked = dict[Row, Measured]


def title(report: BenchReport) -> str:
    """Say what was measured and where, in a line."""
    suite = f"suite {report.suite}, " if report.suite else ""
    ended = ", interrupted" if report.interrupted else ""
    day = f", recorded {report.recorded[:10]}" if report.recorded else ""
    return f"{suite}{_place(report)}{day} with {_software(report)}{ended}"


def _place(report: BenchReport) -> str:
    """Backend, hardware, precision and image size: what a table of several runs has in common."""
    first = report.subjects[0]
    images = "" if first.input == "float32" else f", {first.input} images"
    return f"{first.backend} on {first.device} ({_hardware(report)}), {first.precision}, {first.image_size} px{images}"


def _hardware(report: BenchReport) -> str:
    where = report.environment
    if report.subjects[0].device == "cpu":
        return f"{where['cpu']}, {where['threads']} threads"
    return next((gpu["name"] for gpu in where.get("gpus", ())), "GPU unknown")


def _short_place(report: BenchReport) -> str:
    first = report.subjects[0]
    return f"{_hardware(report)}: {first.backend}, {first.precision}"


def _software(report: BenchReport) -> str:
    versions = report.environment["versions"]
    row = find(report.subjects[0].backend)
    names = dict.fromkeys((*(() if row is None else (row.module,)), "torch"))
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def figures(reports: Iterable[BenchReport]) -> str:
    """Return Markdown with a table for each backend on each machine, a row for each model and batch beside its baseline.

    Of several measurements of one row the newest counts of those that are stable on both sides, or the newest if none is.
    """
    return "\n\n".join(_group(place, reports) for place, reports in _places(reports))


def summary(reports: Iterable[BenchReport]) -> str:
    """Return a Markdown table of a row for each model on each machine, at its smallest and its largest batch.

    The speedups are those over the vanilla twin; rows are picked as for :func:`figures`.
    """
    rows: list[tuple[str, ...]] = []
    for _, group in _places(reports):
        models: dict[str, dict[int, Measured]] = {}
        for (model, _, batch), found in _pick(group).items():
            if found[0].baseline_kind == "twin":
                models.setdefault(model, {})[batch] = found
        for model, batches in models.items():
            ends = [_extreme(batch, batches[batch][1]) for batch in dict.fromkeys((min(batches), max(batches)))]
            rows.append((model, _short_place(group[0]), ends[0], ends[-1] if len(ends) > 1 else MISSING))
    header = ("model", "measured on", "smallest batch", "largest batch")
    return markdown(Table("summary", header, tuple(rows)))


SECTIONS = {"figures": figures, "summary": summary}


def update(path: Path, reports: Iterable[BenchReport]) -> None:
    """Replace what stands between the markers ``<!-- NAME:begin ... -->`` and ``<!-- NAME:end -->`` of a Markdown file.

    Args:
        path: File with one or more of the sections in :data:`SECTIONS`.
        reports: What to show.

    Raises:
        InputError: It cannot be read, or has no markers.
    """
    reports = list(reports)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise no_such_file(path, InputError, "Give a Markdown file with markers.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    found = False
    for name, write in SECTIONS.items():
        start, stop = text.find(f"<!-- {name}:begin"), text.find(f"<!-- {name}:end -->")
        if 0 <= start < stop:
            start = text.index("\n", start) + 1
            text, found = f"{text[:start]}\n{write(reports)}\n\n{text[stop:]}", True
    if not found:
        markers = " or ".join(f"<!-- {name}:begin ... --> and <!-- {name}:end -->" for name in SECTIONS)
        raise InputError(f"{path} has no lines {markers} to write between.")
    write_bytes(path, text.encode())


def markdown(table: Table) -> str:
    """Return a table, numbers to the right."""
    left = table.left
    rule = "|".join("---" if name in left else "---:" for name in table.header)
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(["| " + " | ".join(table.header) + " |", f"|{rule}|", *rows])


def _places(reports: Iterable[BenchReport]) -> list[tuple[str, list[BenchReport]]]:
    """Reports by backend and machine, those measured first in front; each group in the order of its time, a baseline each."""
    groups: dict[str, list[BenchReport]] = {}
    for report in sorted(reports, key=lambda report: report.recorded):
        groups.setdefault(_place(report), []).extend(report.views)
    return list(groups.items())


def _pick(reports: Sequence[BenchReport]) -> Picked:
    """The measurement that counts of each row, models in the order of their first measurement, batches ascending."""
    picked: Picked = {}
    for report in reports:
        for point in report.points:
            key = (point.subject, report.baseline or "", point.batch)
            if point.subject != report.baseline and (
                key not in picked or settled(report, point) >= settled(*picked[key])
            ):
                picked[key] = (report, point)
    order = list(dict.fromkeys(model for model, _, _ in picked))
    return {key: picked[key] for key in sorted(picked, key=lambda key: (order.index(key[0]), key[1:]))}


def _group(place: str, reports: Sequence[BenchReport]) -> str:
    """The table of one place; reports are in the order of their time."""
    picked = _pick(reports)
    columns = shown("markdown", picked.values())
    header = ("model", "batch", *(column.title(brief=True) for column in columns))
    rows = tuple(
        (point.subject, str(point.batch), *(column.text(report, point, brief=True) for column in columns))
        for report, point in picked.values()
    )
    used = [report for report in reports if any(report is one for one, _ in picked.values())] or reports[-1:]
    days = sorted({report.recorded[:10] for report in used if report.recorded})
    when = f", recorded {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    software = "; ".join(dict.fromkeys(map(_software, used)))
    random = ", random weights" if all(_random(*one) for one in picked.values()) else ""
    text = f"{place}{random}{when} with {software}:\n\n{markdown(Table(place, header, rows))}"
    # Views of one run for several baselines have these tables in common.
    more = dict.fromkeys(f"{table.title}:\n\n{markdown(table)}" for report in used for table in tables(report)[1:])
    return "\n\n".join([text, *more])


def _extreme(batch: int, point: Point) -> str:
    found = point.speedup
    times = MISSING if found is None else f"{found.ratio:.2f}x"
    return f"{batch}: **{times}**, {PER_SECOND.show(point.images_per_second)} images/s"


def _random(report: BenchReport, point: Point) -> bool:
    """Whether the weights are random: a PyTorch module of an older record says so in its notes only."""
    said = any(note.startswith(f"{point.subject}: random weights") for note in report.notes)
    return bool(report.subject(point.subject).random_weights) or said
