"""What the figures mean: how much faster, from which batch on, which batch fits a budget, how far from the ideal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .quantities import MS, PER_SECOND, device_speedup
from .report import BenchReport, Point
from .settings import STOCK_COMPILED
from .statistics import TOLERANCE
from .subject import Subject

__all__ = ["FIRST", "Answer", "Verdict", "answers", "best_point", "verdict"]

Verdict = Literal["faster", "slower", "equal", "unstable", "short"]
# What a reader came for, and so stands above the tables; the rest of the answers stand below.
FIRST = ("speedup", "device", "budget")
# Closer to 1 than this, a certain difference is none that anyone would act on.
SMALL = 0.005


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        question: ``speedup`` and ``device`` (once for each baseline), ``budget``, ``break_even``, ``ideal``, ``paper``,
            ``compute`` or ``bandwidth``.
        subject: Model it is about.
        value: Speedup at the largest batch size where it was measurable, batch size, or share; None where there is none.
        text: In words.
    """

    question: str
    subject: str
    value: float | None
    text: str


def answers(report: BenchReport, budget_ms: float | None = None) -> list[Answer]:
    """Everything that the points of a report answer; for each model, what a reader came for first.

    Args:
        report: Measured or read from a record.
        budget_ms: Latency that a batch may take.
    """
    found = []
    for subject in report.subjects:
        points = report.of(subject.label)
        if not points:
            continue
        compared = any(point.speedup for point in points)
        if compared:
            for view in report.views:
                found += [_speedup(view, subject, view.of(subject.label)), *_on_device(view, subject)]
        if budget_ms is not None:
            found.append(_budget(subject, points, budget_ms))
        if compared:
            found.append(_break_even(report, subject, points))
            found += _ideal(report, subject, points)
        found += _share_of_peak(report, subject, points)
    return found


def verdict(report: BenchReport, point: Point) -> Verdict:
    """Return what a point says about its speedup.

    ``short``: too few rounds for an interval. ``unstable``: a latency of the pair did not settle, and the speedup is not known
    within 5 % either (half its interval); drift that both sides share cancels in a speedup, so an unstable latency alone does
    not make it doubtful. ``equal``: the interval covers 1. Else ``faster`` or ``slower``.

    Args:
        report: That the point is from; the baseline's point at the same batch size counts too.
        point: With a speedup.
    """
    found = point.speedup
    if found is None or found.low is None or found.high is None:
        return "short"
    other = next((p for p in report.points if (p.subject, p.batch) == (found.against, point.batch)), None)
    settled = point.stable and (other is None or other.stable)
    if not settled and found.high - found.low > 2 * TOLERANCE * found.ratio:
        return "unstable"
    if found.low <= 1 <= found.high or abs(found.ratio - 1) < SMALL:
        return "equal"
    return "faster" if found.ratio > 1 else "slower"


def best_point(report: BenchReport, points: Sequence[Point]) -> Point | None:
    """Return the point with the largest speedup among those where it was measurable; None without any."""
    known = [point for point in points if point.speedup and verdict(report, point) not in ("unstable", "short")]
    return max(known, key=lambda point: point.speedup.ratio if point.speedup else 0.0, default=None)


def _speedup(report: BenchReport, subject: Subject, points: tuple[Point, ...]) -> Answer:
    """How many times faster or slower than the baseline, the largest batch size first."""
    measurable = [point for point in reversed(points) if verdict(report, point) not in ("unstable", "short")]
    others = [point for point in reversed(points) if point.speedup and point not in measurable]
    said = list[str]()
    for point in (*measurable, *others):
        found, judged = point.speedup, verdict(report, point)
        assert found is not None
        name = "" if said else f" {_baseline(found.against)}"  # once is enough
        low, high = found.low or 0.0, found.high or 0.0
        if judged == "faster":
            text = (
                f"{found.ratio:.2f}x faster{name and ' than' + name} at batch {point.batch} [95% {low:.2f}, {high:.2f}]"
            )
        elif judged == "slower":
            interval = f"{1 / high:.2f}, {1 / low:.2f}"
            text = f"{1 / found.ratio:.2f}x slower{name and ' than' + name} at batch {point.batch} [95% {interval}]"
        elif judged == "equal":
            from_name = name and " from" + name
            text = f"no measurable difference{from_name} at batch {point.batch} [95% {low:.2f}, {high:.2f}]"
        else:
            why = f"unstable, 95% {low:.2f}, {high:.2f}" if judged == "unstable" else "too few rounds"
            text = f"speedup{name and ' over' + name} not measurable at batch {point.batch} ({why})"
        said.append(text)
    certain = [point for point in measurable if verdict(report, point) != "equal"]
    value = certain[0].speedup.ratio if certain and certain[0].speedup else None
    return Answer("speedup", subject.label, value, f"{subject.label}: {'; '.join(said)}")


def _on_device(report: BenchReport, subject: Subject) -> list[Answer]:
    """The same of the medians on the device, where gaps between launches are in neither; nothing where that is not known."""
    said, ratios = list[str](), list[float]()
    for point in reversed(report.of(subject.label)):
        ratio = device_speedup(report, point)
        if ratio is None:
            continue
        name = "" if said else f" than {_baseline(report.baseline or '')}"
        how = f"{max(ratio, 1 / ratio):.2f}x {'faster' if ratio >= 1 else 'slower'}"
        said.append(f"{how}{name} at batch {point.batch}")
        ratios.append(ratio)
    if not said:
        return []
    return [Answer("device", subject.label, ratios[0], f"{subject.label} on the device alone: {'; '.join(said)}")]


def _baseline(label: str) -> str:
    """A label of the baseline in words."""
    name, _, kind = label.rpartition(" ")
    words = {
        "twin": "the vanilla twin",
        "trimmed": "the trimmed twin",
        "stock": f"stock {name}",
        STOCK_COMPILED: f"stock {name} under torch.compile",
    }
    return words.get(kind, label)


def _break_even(report: BenchReport, subject: Subject, points: tuple[Point, ...]) -> Answer:
    """The smallest batch size from which on it is certainly faster."""
    label, sizes = subject.label, [point.batch for point in points]
    against = next(point.speedup.against for point in points if point.speedup)
    first = None
    for point in reversed(points):
        if verdict(report, point) != "faster":
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
        text = f"{label} does not fit into {budget_ms:g} ms: batch {smallest.batch} has a {name} of {MS.show(value)} ms"
        return Answer("budget", label, None, text)
    best = max(fitting, key=lambda point: point.images_per_second)
    name, value = _tail(best)
    text = (
        f"{label} in {budget_ms:g} ms: batch {best.batch}, {PER_SECOND.show(best.images_per_second)} images/s, {name} "
        f"{MS.show(value)} ms"
    )
    return Answer("budget", label, best.batch, text)


def _tail(point: Point) -> tuple[str, float]:
    if point.p99_ms is not None:
        return "p99", point.p99_ms
    return ("p95", point.p95_ms) if point.p95_ms is not None else ("p90", point.p90_ms)


def _ideal(report: BenchReport, subject: Subject, points: tuple[Point, ...]) -> list[Answer]:
    """The best speedup beside the ratio of the multiply-accumulates, and beside the paper's."""
    best = best_point(report, points)
    if best is None or best.speedup is None:
        return []
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
    """Share of what large matrix products and large copies reached on the spot, at the batch with the most throughput.

    A share above 1 is left out: what was measured then is no peak of this model. A model that fits into the caches moves its
    data faster than large copies do, and a machine that was busier during the products than during the model shows it too.
    """
    peak = next((p for p in report.peaks if (p.device, p.precision) == (subject.device, subject.precision)), None)
    facts = subject.facts
    if peak is None or not facts.macs:
        return []
    best = max(points, key=lambda point: point.images_per_second)
    where = f"{subject.label} at batch {best.batch}"
    compute, found = facts.macs * best.images_per_second / peak.macs_per_second, list[Answer]()
    if compute <= 1:
        text = (
            f"{where}: {compute:.0%} of the {peak.macs_per_second / 1e12:.3g} TMAC/s that large matrix products reach here "
            f"({peak.precision})"
        )
        found.append(Answer("compute", subject.label, compute, text))
    if facts.weight_bytes is not None and facts.activation_bytes is not None:
        moved = facts.weight_bytes / best.batch + facts.activation_bytes
        share = moved * best.images_per_second / peak.bytes_per_second
        if share <= 1:
            text = (
                f"{where}: {share:.0%} of the {peak.bytes_per_second / 1e9:.3g} GB/s that large copies reach here, if "
                f"everything between matrix products is fused into them"
            )
            found.append(Answer("bandwidth", subject.label, share, text))
    return found
