"""What the figures mean: from which batch on it pays, which batch fits a budget, how far from the ideal and from the hardware."""

from __future__ import annotations

from dataclasses import dataclass

from .report import BenchReport, Point, Subject
from .text import ms, per_second

__all__ = ["Answer", "answers"]


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        question: ``break_even``, ``budget``, ``ideal``, ``paper``, ``compute`` or ``bandwidth``.
        subject: Model it is about.
        value: Batch size, or share; None where there is none.
        text: In words.
    """

    question: str
    subject: str
    value: float | None
    text: str


def answers(report: BenchReport, budget_ms: float | None = None) -> list[Answer]:
    """Everything that the points of a report answer.

    Args:
        report: Measured or read from a record.
        budget_ms: Latency that a batch may take.
    """
    found = []
    for subject in report.subjects:
        points = report.of(subject.label)
        if not points:
            continue
        if any(point.speedup for point in points):
            found.append(_break_even(subject, points))
            found += _ideal(report, subject, points)
        if budget_ms is not None:
            found.append(_budget(subject, points, budget_ms))
        found += _share_of_peak(report, subject, points)
    return found


def _break_even(subject: Subject, points: tuple[Point, ...]) -> Answer:
    """The smallest batch size from which on the whole interval is above 1."""
    label, sizes = subject.label, [point.batch for point in points]
    against = next(point.speedup.against for point in points if point.speedup)
    first = None
    for point in reversed(points):
        if point.speedup is None or point.speedup.low is None or point.speedup.low <= 1:
            break
        first = point.batch
    if first is None:
        text = f"{label} is not certainly faster than {against} at batch {max(sizes)}, the largest measured"
    elif first == min(sizes):
        text = f"{label} is faster than {against} at every batch size measured ({', '.join(map(str, sizes))})"
    else:
        text = f"{label} is faster than {against} from batch {first} on (measured: {', '.join(map(str, sizes))})"
    return Answer("break_even", label, first, text)


def _budget(subject: Subject, points: tuple[Point, ...], budget_ms: float) -> Answer:
    """The batch size with the most throughput whose tail fits: p99, or p95, or p90, as far as it was measured."""
    label = subject.label
    fitting = [point for point in points if _tail(point)[1] <= budget_ms]
    if not fitting:
        smallest = points[0]
        name, value = _tail(smallest)
        text = f"{label} does not fit into {budget_ms:g} ms: batch {smallest.batch} has a {name} of {ms(value)} ms"
        return Answer("budget", label, None, text)
    best = max(fitting, key=lambda point: point.images_per_second)
    name, value = _tail(best)
    text = (
        f"{label} in {budget_ms:g} ms: batch {best.batch}, {per_second(best.images_per_second)} images/s, {name} "
        f"{ms(value)} ms"
    )
    return Answer("budget", label, best.batch, text)


def _tail(point: Point) -> tuple[str, float]:
    if point.p99_ms is not None:
        return "p99", point.p99_ms
    return ("p95", point.p95_ms) if point.p95_ms is not None else ("p90", point.p90_ms)


def _ideal(report: BenchReport, subject: Subject, points: tuple[Point, ...]) -> list[Answer]:
    """The best speedup beside the ratio of the multiply-accumulates, and beside the paper's."""
    best = max((p for p in points if p.speedup), key=lambda p: p.speedup.ratio if p.speedup else 0.0)
    assert best.speedup is not None
    ratio, found = best.speedup.ratio, []
    macs, against = subject.facts.macs, report.subject(best.speedup.against).facts.macs
    if macs and against:
        ideal = against / macs
        text = (
            f"{subject.label}: speedup {ratio:.3f} at batch {best.batch}; the ratio of multiply-accumulates, the ideal, is "
            f"{ideal:.3f} ({ratio / ideal:.0%} of it)"
        )
        found.append(Answer("ideal", subject.label, ratio / ideal, text))
    if subject.facts.published_speedup:
        text = (
            f"{subject.label}: the paper's speedup is {subject.facts.published_speedup:.3f} (V100, PyTorch eager, FP32, "
            f"batch 256; {subject.facts.published_source}), here {ratio:.3f} at batch {best.batch}"
        )
        found.append(Answer("paper", subject.label, ratio / subject.facts.published_speedup, text))
    return found


def _share_of_peak(report: BenchReport, subject: Subject, points: tuple[Point, ...]) -> list[Answer]:
    """Share of what large matrix products and large copies reached on the spot, at the batch with the most throughput."""
    peak = next((p for p in report.peaks if (p.device, p.precision) == (subject.device, subject.precision)), None)
    facts = subject.facts
    if peak is None or not facts.macs:
        return []
    best = max(points, key=lambda point: point.images_per_second)
    where = f"{subject.label} at batch {best.batch}"
    compute = facts.macs * best.images_per_second / peak.macs_per_second
    found = [
        Answer(
            "compute",
            subject.label,
            compute,
            f"{where}: {compute:.0%} of the {peak.macs_per_second / 1e12:.3g} TMAC/s that large matrix products reach here "
            f"({peak.precision})",
        )
    ]
    if facts.weight_bytes is not None and facts.activation_bytes is not None:
        moved = facts.weight_bytes / best.batch + facts.activation_bytes
        share = moved * best.images_per_second / peak.bytes_per_second
        found.append(
            Answer(
                "bandwidth",
                subject.label,
                share,
                f"{where}: {share:.0%} of the {peak.bytes_per_second / 1e9:.3g} GB/s that large copies reach here, if "
                f"everything between matrix products is fused into them",
            )
        )
    return found
