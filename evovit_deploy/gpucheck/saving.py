"""What `evovit gpu-check` writes: a document with everything, the measurements as records, and a page."""

from __future__ import annotations

import json
from pathlib import Path

from ..bench.page import page
from ..bench.records import append
from ..bench.text import Table
from ..errors import InputError, OutputError, translate
from ..machine.extras import modules_of
from ..machine.probing import exists
from ..storage.files import printable, staged
from ..storage.ownership import Ours, check_replaceable, is_page, is_records
from .runner import CheckResult

__all__ = ["check_output", "draws", "save", "tables"]

DOCUMENT, RECORDS, PAGE = "check.json", "bench.jsonl", "index.html"
HEADER = ("model", "backend", "check", "holds", "what was found")


def _is_document(path: Path) -> bool:
    document = json.loads(path.read_bytes())
    return isinstance(document, dict) and document.get("kind") == "gpu-check"


def _places(folder: Path) -> dict[Path, Ours]:
    return {folder / DOCUMENT: _is_document, folder / RECORDS: is_records, folder / PAGE: is_page("gpu-check")}


def draws() -> bool:
    """Whether what draws the page is installed, the extra `report`; a GPU machine without a network may not have it."""
    return all(exists(module) for module in modules_of("report"))


def check_output(folder: Path, *, force: bool = False) -> None:
    """Raise now what :func:`save` would raise after the work.

    Raises:
        InputError: It is a file, or the folder that it would be made in is not there.
        OutputError: A file cannot be written, or would replace one that evovit did not write.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {printable(folder)} is a file; give a folder, which is made if it is missing.")
    if folder.is_dir():
        check_replaceable(_places(folder), force=force)
    elif not folder.parent.is_dir():
        raise InputError(f"the folder {printable(folder.parent)} does not exist. Create it first.")


def save(result: CheckResult, folder: Path, *, force: bool = False) -> list[Path]:
    """Write the files, all of them or none; returns them.

    Raises:
        OutputError: See :func:`check_output`.
    """
    check_output(folder, force=force)
    with translate(OutputError, f"cannot make the folder {printable(folder)}", OSError):
        folder.mkdir(exist_ok=True)
    places = list(_places(folder))
    if not result.reports:
        places.remove(folder / RECORDS)
    if not draws():
        places.remove(folder / PAGE)
    with staged(*places) as new:
        (new / DOCUMENT).write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
        for report in result.reports:
            append(new / RECORDS, report.to_dict())
        if folder / PAGE in places:
            drawn = page(result.reports, command="gpu-check", about=_about(result), above=tables(result))
            (new / PAGE).write_text(drawn, encoding="utf-8")
    return places


def _about(result: CheckResult) -> list[str]:
    found = result.environment
    where = "; ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in found["gpus"]) or "no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    ended = "Interrupted." if result.interrupted else f"{len(result.failed)} checks failed."
    return [
        f"Checked on {result.options.device} in {result.options.of_precision}, in {result.seconds:.0f} s. {ended}",
        f"{where}; {found['cpu']}; {versions}",
    ]


def tables(result: CheckResult) -> list[Table]:
    """Return what holds, and what was not looked at."""
    words = {"ok": "yes", "failed": "NO", "skipped": "-"}
    rows = tuple((o.model, o.backend, o.check, words[o.status], o.value) for o in result.outcomes)
    found = [Table("What was checked, each model against itself in FP32", HEADER, rows, group=1)]
    if result.skipped:
        left = tuple(result.skipped.items())
        found.append(Table("What was not looked at", ("backend", "what was found"), left, group=None))
    return found
