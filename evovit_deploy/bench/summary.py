"""Several runs in one table: every model at its best, beside the ideal and the paper's own figures."""

from __future__ import annotations

from collections.abc import Sequence

from .answers import best_point, verdict
from .quantities import MISSING, PER_SECOND, shown
from .report import BenchReport
from .text import Table

__all__ = ["summary"]


def summary(reports: Sequence[BenchReport]) -> Table | None:
    """Return a row for each model of each report, at the batch size with its largest measurable speedup; None without any
    speedup.

    The paper measured on a V100, in PyTorch eager, FP32, at batch 256.
    """
    rows = []
    several = any(report.further_baselines for report in reports)
    every = [(view, point) for report in reports for view in report.views for point in view.points]
    on_device = [row for row in shown("markdown", every) if row.key in ("device.p50_ms", "launched", "device_speedup")]
    for report in (view for each in reports for view in each.views):
        for subject in report.subjects:
            points = [point for point in report.of(subject.label) if point.speedup]
            if not points:
                continue
            best, facts = best_point(report, points) or points[-1], subject.facts
            found = best.speedup
            assert found is not None
            against = report.subject(found.against).facts.macs
            interval, measurable = "", verdict(report, best) not in ("unstable", "short")
            if found.low is not None and found.high is not None:
                interval = f" [{found.low:.2f}, {found.high:.2f}]"
            rows.append(
                (
                    subject.label,
                    f"{found.ratio:.2f}{interval}" if measurable else "not measurable",
                    f"{against / facts.macs:.2f}" if against and facts.macs else MISSING,
                    f"{facts.published_speedup:.2f}" if facts.published_speedup else MISSING,
                    str(best.batch),
                    PER_SECOND.show(best.images_per_second),
                    PER_SECOND.show(facts.published_images_per_second)
                    if facts.published_images_per_second
                    else MISSING,
                    f"{subject.backend} {subject.precision}",
                    *(row.text(report, best) for row in on_device),
                    *((report.baseline_kind or MISSING,) if several else ()),
                )
            )
    header = ("model", "speedup", "MAC ratio", "paper's speedup", "batch", "img/s", "paper's img/s", "backend")
    more = (*(row.title() for row in on_device), *(("baseline",) if several else ()))
    return Table("Best speedups", (*header, *more), tuple(rows)) if rows else None
