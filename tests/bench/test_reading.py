"""Records come back as they were written, and what is not understood is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.bench import Facts, Opened, Settings, benchmark, read_records, records
from evovit_deploy.bench.report import BenchReport, Latency, Peaks, Preprocessing
from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def report(clock: Any) -> BenchReport:
    engines: dict[str, Any] = {
        name: FakeEngine(latency=ms / 1000, sleep=clock.advance) for name, ms in (("evo", 2), ("deit", 3))
    }
    settings = Settings(batches=(1, 4), min_seconds=0.5, min_calls=20, rate=10.0)
    engines["evo"] = Opened.of(engines["evo"], Facts(macs=1.0))
    found = benchmark(engines, settings, baseline="deit", clock=clock, sleep=clock.advance)
    device = dataclasses.replace(
        found.points[0], device=Latency(5, 1, 1, 1, 1, 1, None, 1), gpu={"throttled": [], "other_processes": 0}
    )
    return dataclasses.replace(
        found,
        points=(device, *found.points[1:]),
        peaks=(Peaks("cpu", "fp32", 1e9, 1e9),),
        preprocessing=Preprocessing(3, 1.5),
        command="evovit bench x.onnx",
    )


def test_round_trip(clock: Any, tmp_path: Path) -> None:
    written = report(clock)
    records.append(tmp_path / "r.jsonl", written.to_dict())
    (read,) = read_records(tmp_path / "r.jsonl")
    assert read.recorded
    assert json.dumps(read.to_dict()) == json.dumps(written.to_dict())


def test_the_shipped_records_are_readable() -> None:
    files = sorted((ROOT / "bench" / "results").glob("*.jsonl"))
    assert files
    for file in files:
        for found in read_records(file):
            assert found.points
            assert found.recorded


def test_schema_1_is_brought_to_the_present_form() -> None:
    old = {
        "subject": "a", "batch": 1, "calls": 6, "rounds": 6, "seconds": 1.0, "p50_ms": 2.0, "p90_ms": 2.0, "p99_ms": None,
        "mean_ms": 2.0, "min_ms": 2.0, "max_ms": 2.0, "images_per_second": 500.0, "windows_ms": [1.0, 2.0, 3.0],
        "stable": False, "capped": False, "speedup": None,
    }  # fmt: skip
    settings = {"batches": [1], "min_seconds": 1.0, "min_calls": 1, "max_seconds": 30.0, "warmup_seconds": 0.5}
    document = {
        "recorded": "2026-01-01T00:00:00+00:00", "schema": 1, "kind": "bench", "stable": False, "subjects": [],
        "baseline": None, "points": [old], "settings": {**settings, "warmup_calls": 3, "confidence": 0.95}, "images": "",
        "environment": {}, "not_measured": [], "notes": [], "interrupted": False,
    }  # fmt: skip
    from evovit_deploy.bench.reading import parse

    found = parse(json.dumps(document), "here")
    assert [window.p50_ms for window in found.points[0].windows] == [1, 2, 3]
    assert found.points[0].p95_ms is None
    assert found.settings.method == "ratio of the median latencies"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 1: not JSON"),
        ("[]", "not a record"),
        ('{"kind": "parity", "schema": 1}', "not a record"),
        ('{"kind": "bench", "schema": 3}', r"schema 3, and this version of evovit-deploy reads 1 and 2"),
        ('{"kind": "bench"}', "schema None"),
        ('{"kind": "bench", "schema": 2}', "damaged record"),
        ('{"kind": "bench", "schema": 1, "settings": {}}', "damaged record"),
    ],
)
def test_what_is_not_understood_is_refused(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_records(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no record"):
        read_records(tmp_path / "empty.jsonl")
