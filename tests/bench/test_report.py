"""How a report reads, and its JSON."""

from __future__ import annotations

import dataclasses
import json
import socket
from typing import Any

from evovit_deploy.bench import BenchReport, Facts, Opened, Settings, benchmark
from evovit_deploy.bench.summary import summary
from evovit_deploy.bench.text import lines, tables
from evovit_deploy.engines import FakeEngine
from tests.bench import made


def report(clock: Any, seconds: float = 1.0, facts: Facts | None = None, **other: Any) -> BenchReport:
    engines: dict[str, Any] = {
        name: FakeEngine(latency=ms / 1000, sleep=clock.advance) for name, ms in (("evo", 2), ("deit", 3))
    }
    engines["evo"] = Opened.of(engines["evo"], facts)
    settings = Settings(batches=(1,), min_seconds=seconds, min_calls=20)
    return benchmark(engines, settings, baseline="deit", threads=2, clock=clock, **other)


def test_table(clock: Any) -> None:
    table = tables(report(clock, 2))[0]
    assert [len(row) for row in table.rows] == [len(table.header)] * 2
    known = ("batch", "model", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "img/s", "speedup", "stable")
    assert tuple(name for name in table.header if name in known) == known  # others may stand between them
    evo, deit = (dict(zip(table.header, row)) for row in table.rows)
    found = ("1", "evo", "2.000", "2.000", "2.000", "2.000", "500", "1.500 [1.500, 1.500]", "yes")
    assert tuple(evo[name] for name in known) == found
    assert (deit["speedup"], deit["stable"]) == ("baseline", "yes")


def test_accuracy_stands_beside_speed(clock: Any) -> None:
    found = report(clock, facts=Facts(top1=0.978, labelled=360, macs=3.03e9, load_ms=120))
    table = tables(found)[0]
    at = table.header.index("top-1")
    assert [row[at] for row in table.rows] == ["97.8%", "not evaluated"]
    assert "accuracy: not evaluated" not in lines(found)
    assert "evo: load 120 ms, 3.03 GMACs an image" in lines(found)


def test_no_p99_where_there_are_too_few_calls(clock: Any) -> None:
    found = report(clock, 0.1)
    assert found.points[0].calls < 500
    assert tables(found)[0].rows[0][5] == "—"
    assert any("p99 needs 500 calls" in line for line in lines(found))


def test_lines_say_where_and_what_was_not_measured(clock: Any) -> None:
    text = lines(report(clock, notes=["a note"]))
    assert "accuracy: not evaluated" in text
    assert "GPU: not measured" in text
    assert "note: a note" in text
    assert any("2 CPU threads" in line for line in text)
    assert any("synthetic image" in line for line in text)
    assert any("95% interval" in line for line in text)


def test_json_document(clock: Any) -> None:
    document = json.loads(json.dumps(report(clock).to_dict()))
    assert document["schema"] == 2
    assert document["kind"] == "bench"
    assert document["stable"] is True
    assert document["baseline"] == "deit"
    assert document["settings"]["batches"] == [1]
    assert document["points"][0]["speedup"]["against"] == "deit"
    assert document["environment"]["threads"] == 2
    assert {"cpu", "os", "python", "versions", "load_average", "load_average_end", "gpus"} <= set(
        document["environment"]
    )


def test_json_names_neither_the_host_nor_a_path(clock: Any) -> None:
    text = json.dumps(report(clock).to_dict()["environment"])
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert "/home" not in text
    assert "/tmp" not in text


def test_what_the_driver_said(clock: Any) -> None:
    found = report(clock)
    seen = {"sm_mhz": [1400, 1980], "milliwatt": [300_000, 690_000], "throttled": ["power cap"], "other_processes": 2}
    text = lines(dataclasses.replace(found, points=tuple(dataclasses.replace(p, gpu=seen) for p in found.points)))
    assert text.count("batch 1: GPU SM clock 1400 to 1980 MHz, power 300 to 690 W") == 1
    assert "batch 1: the GPU was slowed down by power cap" in text
    assert "batch 1: 2 other processes used the GPU" in text


def test_several_runs_in_one_table_beside_the_paper() -> None:
    table = summary(
        [made.report(), made.report(made.point("evo", 4, 10.0, (1.3, 1.2, 1.4)), made.point("deit", 4, 13.0))]
    )
    assert table is not None
    assert table.rows == (
        ("evo", "1.50 [1.45, 1.55]", "1.50", "1.60", "32", "213", "1510", "onnxruntime fp32"),
        ("evo", "1.30 [1.20, 1.40]", "1.50", "1.60", "4", "400", "1510", "onnxruntime fp32"),
    )
    assert summary([made.report(made.point("evo", 4, 10.0))]) is None
