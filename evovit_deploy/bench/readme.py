"""Writes the README's figures from the records: `python -m evovit_deploy.bench.readme README.md bench/results/*.jsonl`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_bytes

__all__ = ["figures", "update"]

BEGIN, END = "<!-- figures:begin", "<!-- figures:end -->"


def figures(records: list[dict[str, Any]]) -> str:
    """Markdown: a table for each record, with the environment it was measured in.

    Args:
        records: Documents of schema 1, as ``evovit bench --record`` writes them.
    """
    return "\n\n".join(_table(record) for record in records if record.get("kind") == "bench")


def update(readme: Path, records: list[dict[str, Any]]) -> None:
    """Replace what stands between the markers of ``readme``.

    Raises:
        InputError: The markers are missing.
    """
    text = readme.read_text(encoding="utf-8")
    start, stop = text.find(BEGIN), text.find(END)
    if start < 0 or stop < start:
        raise InputError(f"{readme} has no lines {BEGIN} ... --> and {END} to write between.")
    start = text.index("\n", start) + 1
    write_bytes(readme, (text[:start] + "\n" + figures(records) + "\n\n" + text[stop:]).encode())


def _table(record: dict[str, Any]) -> str:
    environment, subjects = record["environment"], {s["label"]: s for s in record["subjects"]}
    first = record["subjects"][0]
    lines = [
        f"{first['backend']} on {first['device']} ({environment['cpu']}, {environment['threads']} threads), "
        f"{first['precision']}, {first['image_size']} px, recorded {record['recorded'][:10]} with "
        f"onnxruntime {environment['versions']['onnxruntime']}, torch {environment['versions']['torch']}:",
        "",
        "| batch | model | p50 ms | p90 ms | images/s | speedup [95% interval] | stable |",
        "|---:|---|---:|---:|---:|---|---|",
    ]
    for point in record["points"]:
        speedup = point["speedup"]
        against = "baseline" if point["subject"] == record["baseline"] else "not measured"
        if speedup:
            against = f"{speedup['ratio']:.2f} [{speedup['low']:.2f}, {speedup['high']:.2f}]"
        random = ", random weights" if subjects[point["subject"]]["random_weights"] else ""
        lines.append(
            f"| {point['batch']} | {point['subject']}{random} | {point['p50_ms']:.1f} | {point['p90_ms']:.1f} | "
            f"{point['images_per_second']:.1f} | {against} | {'yes' if point['stable'] else 'no'} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Entry point: README, then record files."""
    readme, *files = arguments
    update(Path(readme), [json.loads(line) for file in files for line in Path(file).read_text().splitlines()])


if __name__ == "__main__":
    main(sys.argv[1:])
