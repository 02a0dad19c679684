"""Reports with known figures."""

from __future__ import annotations

from typing import Any

from evovit_deploy.bench import BenchReport, Facts, Point, Settings, Speedup, Subject
from evovit_deploy.bench.report import Window
from evovit_deploy.recipes import Evolution, Recipe, Structure

MICRO = Recipe(
    "evo_micro",
    "evo_deit",
    Structure(image_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5),
    Evolution((1, 0.5), (1, 0.5), stage_starts=(1,)),
    baseline="deit_micro",
)
"""Two blocks for images of 32 pixels: the least that selects, for what runs in PyTorch."""

ENVIRONMENT = {
    "cpu": "Test CPU", "physical_cores": 2, "threads": 2, "versions": {"onnxruntime": "1.0", "torch": "2.0"},
    "gpus": [], "load_average": 0.1, "load_average_end": 0.2,
}  # fmt: skip


def subject(label: str, **facts: Any) -> Subject:
    known = Facts(**facts)
    return Subject(label, label, "onnxruntime", "cpu", "fp32", 224, "float32", None, ("logits",), facts=known)


def point(label: str, batch: int, ms: float, speedup: tuple[float, float, float] | None = None, **more: Any) -> Point:
    values: dict[str, Any] = {
        "calls": 600, "rounds": 60, "seconds": 0.6 * ms, "p50_ms": ms, "p90_ms": 1.1 * ms, "p95_ms": 1.2 * ms,
        "p99_ms": 1.5 * ms, "mean_ms": ms, "min_ms": 0.9 * ms, "max_ms": 2 * ms, "images_per_second": 1000 * batch / ms,
        "windows": tuple(Window(ms * x, ms * x, ms * x, 200) for x in (0.99, 1.0, 1.01)), "stable": True, "capped": False,
    }  # fmt: skip
    against = None if speedup is None else Speedup("deit", *speedup)
    return Point(label, batch, **{**values, **more}, speedup=against)


def report(*points: Point, **more: Any) -> BenchReport:
    """``evo`` against ``deit``: 1.2 times at batch 1 with an interval around 1, 1.4 and 1.5 times at 8 and 32."""
    found = points or (
        point("evo", 1, 10.0, (1.02, 0.97, 1.07)),
        point("deit", 1, 10.2),
        point("evo", 8, 40.0, (1.4, 1.35, 1.45)),
        point("deit", 8, 56.0),
        point("evo", 32, 150.0, (1.5, 1.45, 1.55)),
        point("deit", 32, 225.0),
    )
    values: dict[str, Any] = {
        "subjects": (
            subject("evo", macs=3.0e9, weight_bytes=8.8e7, activation_bytes=6e7, published_speedup=1.6, published_source="p",
                published_images_per_second=1510),
            subject("deit", macs=4.5e9, weight_bytes=8.8e7, activation_bytes=9e7),
        ),
        "baseline": "deit", "points": found, "settings": Settings(batches=(1, 8, 32)), "images": "8 of something",
        "environment": dict(ENVIRONMENT), "recorded": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return BenchReport(**{**values, **more})
