"""`evovit bench report` and `compare`, and that `evovit bench MODEL` needs no further word."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evovit_deploy.bench import Speedup, records
from evovit_deploy.cli import app
from evovit_deploy.errors import EvoVitError, InputError, OutputError
from tests.bench.made import point, report


def run(*arguments: str | Path, code: int = 0) -> Any:
    words = ["bench", *(str(argument) for argument in arguments)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == code, result.stderr
    return result


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl"
    records.append(path, report().to_dict())
    return path


def test_tables_and_answers(record: Path) -> None:
    text = run("report", record, "--budget", "61ms").stdout
    for said in ("1.500 [1.450, 1.550]", "-> evo is faster than deit from batch 8 on", "evo in 61 ms: batch 8"):
        assert said in text


def test_page_readme_and_json(record: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- figures:begin -->\n<!-- figures:end -->\n")
    result = run("report", record, "-o", tmp_path / "r.html", "--readme", readme, "--json")
    document = json.loads(result.stdout)
    assert {Path(path).name for path in document["written"]} >= {"r.html", "r-1-latency.png", "README.md"}
    found = {answer["question"]: answer["value"] for answer in document["runs"][0]["answers"]}
    assert (found["speedup"], found["break_even"]) == (1.5, 8)
    assert "| evo | 32 | 150.0 |" in readme.read_text()
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_only_the_last_record(record: Path) -> None:
    records.append(record, report(point("evo", 2, 77.0)).to_dict())
    assert len(json.loads(run("report", record, "--json").stdout)["runs"]) == 2
    assert "Best speedups" in run("report", record).stdout
    (only,) = json.loads(run("report", record, "--last", "--json").stdout)["runs"]
    assert [p["batch"] for p in only["points"]] == [2]


def test_records_are_found_in_the_current_folder(record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no record was given"):
        run("report")
    (tmp_path / "bench" / "results").mkdir(parents=True)
    record.rename(tmp_path / "bench" / "results" / "runs.jsonl")
    assert "evo" in run("report").stdout


def times(path: Path, factor: float, *labels: str) -> Path:
    """The record with the latencies of some models multiplied, and the speedups that follow."""
    changed = []
    for one in report().points:
        relative = (factor if "deit" in labels else 1) / (factor if "evo" in labels else 1)
        speedup = one.speedup and Speedup("deit", *(x * relative for x in dataclasses.astuple(one.speedup)[1:]))
        ms = one.p50_ms * (factor if one.subject in labels else 1)
        changed.append(dataclasses.replace(one, p50_ms=ms, windows=(), speedup=speedup))
    records.append(path, report(*changed).to_dict())
    return path


def test_compare_exits_1_on_a_regression(record: Path, tmp_path: Path) -> None:
    same = run("compare", record, record)
    assert same.stdout.startswith("no regression: of 6 compared, 6 same\n")
    slower = times(tmp_path / "slower.jsonl", 2, "evo")
    result = run("compare", record, slower, code=1)
    assert result.stdout.startswith("regression: of 6 compared, 6 slower\n")
    assert "+100.0%" in result.stdout
    assert "slower by more than 5 %: latency of evo at batch 1" in result.stderr
    document = json.loads(run("compare", record, slower, "--json", code=1).stdout)
    assert document["regressions"] == 6
    assert run("compare", slower, record).exit_code == 0
    assert run("compare", record, slower, "--tolerance", "150").exit_code == 0


def test_a_slower_machine_is_no_regression(record: Path, tmp_path: Path) -> None:
    both = run("compare", record, times(tmp_path / "both.jsonl", 2, "evo", "deit"))
    assert both.stdout.startswith("no regression: of 3 compared, 3 same\n")
    assert "alike" in both.stdout
    assert "the baseline beside it moved the same way" in both.stderr
    assert run("compare", record, times(tmp_path / "baseline.jsonl", 2, "deit")).exit_code == 0


def test_compare_warns_of_rows_that_did_not_settle(record: Path, tmp_path: Path) -> None:
    assert "warning" not in run("compare", record, record).stderr
    points = [dataclasses.replace(p, stable=(p.subject, p.batch) != ("evo", 8)) for p in report().points]
    records.append(tmp_path / "unstable.jsonl", report(*points).to_dict())
    for order in ((record, tmp_path / "unstable.jsonl"), (tmp_path / "unstable.jsonl", record)):
        warned = run("compare", *order).stderr
        assert "warning: did not settle, before or after" in warned
        assert "latency of evo at batch 8" in warned
        assert "batch 32" not in warned


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("report", "none.jsonl"), InputError, r"none\.jsonl: no such file"),
        (("compare", "none.jsonl", "none.jsonl"), InputError, r"none\.jsonl: no such file"),
        (("report", "x.jsonl", "-o", "x.png"), InputError, r"names neither a folder nor a file"),
        (("report", "x.jsonl", "-o", "no/such/x.html"), OutputError, "does not exist"),
        ((), InputError, "nothing to measure"),
        (("run",), InputError, "nothing to measure"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], error: type[EvoVitError], message: str) -> None:
    with pytest.raises(error, match=message):
        run(*arguments)


def test_help_of_the_command_that_needs_no_name() -> None:
    text = run("--help").stdout
    assert "--baseline" in text
    assert "evovit bench report" in text
    assert "RECORDS" in run("report", "--help").stdout


def test_a_model_called_like_a_command_is_reached_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(EvoVitError, match="no such file"):
        run("./report")
