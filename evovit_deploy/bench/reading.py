"""Reads records back; what this version does not understand is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, RecipeError
from ..storage.missing import no_such_file
from ..storage.tables import build_table
from .report import (
    SCHEMA,
    BenchReport,
    Concurrent,
    Latency,
    Paced,
    Peaks,
    Point,
    Preprocessing,
    Speedup,
    Window,
)
from .settings import Settings
from .subject import Facts, Subject

__all__ = ["find_records", "parse", "read_records"]

RESULTS = Path("bench/results")
UPGRADED = 1  # the older schema that is still read


def find_records(paths: Sequence[Path]) -> list[Path]:
    """Return the record files to read: those given, or all in ``bench/results`` below the current folder.

    Raises:
        InputError: None was given, and there is no such folder or nothing in it.
    """
    if paths:
        return list(paths)
    found = sorted(RESULTS.glob("*.jsonl"))
    if not found:
        raise InputError(f"no record was given, and {RESULTS} holds none. Make one: evovit bench MODEL --record FILE")
    return found


def read_records(path: Path) -> list[BenchReport]:
    """Return every benchmark in a record file.

    Raises:
        InputError: Missing, not JSON Lines, or a record of a schema that this version does not know; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise no_such_file(path, InputError, "Make a record with: evovit bench MODEL --record FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    reports = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            reports.append(parse(line, f"{path}, line {number}"))
    if not reports:
        raise InputError(f"{path} holds no record. Make one with: evovit bench MODEL --record {path}")
    return reports


def parse(line: str, where: str) -> BenchReport:
    """Return one record; schema 1, which had fewer figures, is brought to the present form.

    Raises:
        InputError: Not a record of ``evovit bench``, or of another schema.
    """
    try:
        document = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}).") from error
    if not isinstance(document, dict) or document.pop("kind", None) != "bench":
        raise InputError(f"{where}: not a record of `evovit bench`.")
    schema = document.pop("schema", None)
    if schema not in (UPGRADED, SCHEMA):
        raise InputError(
            f"{where}: a record of schema {schema!r}, and this version of evovit-deploy reads {UPGRADED} and {SCHEMA}. "
            f"Read it with the version that wrote it, or measure again."
        )
    document.pop("stable", None)
    try:
        if schema == UPGRADED:
            _upgrade(document)
        return _report(document, where)
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: a damaged record: {error}") from error


def _upgrade(document: dict[str, Any]) -> None:
    """Schema 1 had medians of windows only, no p95, no limit of the warm-up, and the ratio of two medians."""
    settings = document["settings"]
    settings["method"] = "ratio of the median latencies"
    settings["warmup_limit"] = 1e9
    document["not_measured"] = [said for said in document["not_measured"] if not said.startswith("accuracy")]
    for point in document["points"]:
        point["p95_ms"] = None
        point["windows"] = [{"p50_ms": median} for median in point.pop("windows_ms")]


def _report(document: dict[str, Any], where: str) -> BenchReport:
    def one(kind: type[Any], table: Any, **nested: type[Any]) -> Any:
        if table is None:
            return None
        table = dict(table)
        for name, inner in nested.items():
            if isinstance(table.get(name), list):
                table[name] = [one(inner, entry) for entry in table[name]]
            elif name in table:
                table[name] = one(inner, table[name])
        return build_table(kind, table, f"{where}: {kind.__name__.lower()}")

    document["settings"] = one(Settings, document["settings"])
    document["subjects"] = [one(Subject, s, facts=Facts) for s in document["subjects"]]
    nested = {"windows": Window, "speedup": Speedup, "further_speedups": Speedup, "device": Latency}
    document["points"] = [one(Point, p, **nested) for p in document["points"]]
    document["concurrent"] = [one(Concurrent, c) for c in document.get("concurrent", ())]
    document["paced"] = [one(Paced, p, latency=Latency) for p in document.get("paced", ())]
    document["peaks"] = [one(Peaks, p) for p in document.get("peaks", ())]
    document["preprocessing"] = one(Preprocessing, document.get("preprocessing"))
    return one(BenchReport, document)  # type: ignore[no-any-return]
