"""Which files evovit wrote: those are replaced by newer ones, and nothing else is unless it is asked for.

Here is the rule, and how kinds of files are known that several commands write; ONNX files, plans and predictions are known by
the modules that write them.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import InputError, OutputError
from .files import check_writable, printable

__all__ = [
    "XML",
    "Ours",
    "check_not_read",
    "check_replaceable",
    "is_manifest",
    "is_page",
    "is_picture",
    "is_records",
    "is_signed",
    "mark",
    "remove_stale",
    "signed",
]

Ours = Callable[[Path], bool]  # whether evovit wrote the file that is there

_SIGNATURE = "Written by evovit {command}; once it is edited, evovit replaces it only with --force ({digest})."
_HEAD = 4096  # bytes; a page says in its first lines what wrote it


def check_replaceable(places: Mapping[Path, Ours], *, force: bool = False) -> None:
    """Raise OutputError now if one of these files could not be written, or would replace what evovit did not write.

    Args:
        places: File to be written -> how one of its kind is known. An empty file holds nothing and may be replaced.
        force: Whatever is there may be replaced.

    Raises:
        OutputError: The message names every file that is in the way.
    """
    for path in places:
        check_writable(path)
    foreign = [] if force else [path for path, ours in places.items() if not _replaceable(path, ours)]
    if foreign:
        names, many = ", ".join(map(printable, foreign)), len(foreign) > 1
        raise OutputError(
            f"{names} {'exist' if many else 'exists'}, and evovit did not write {'them' if many else 'it'}. Give another name, "
            "or use --force."
        )


def check_not_read(places: Iterable[Path], inputs: Iterable[Path | str | None]) -> None:
    """Raise InputError if a file to be written is one that the same command reads; no option makes that right.

    Args:
        places: Files to be written.
        inputs: Files that are read; None and names that are no file, such as that of a shipped recipe, count for nothing.
    """
    read = {identity for path in inputs if path and (identity := _identity(Path(path))) is not None}
    for place in places:
        if read and _identity(place) in read:
            raise InputError(
                f"{printable(place)} is read by this command, and would be written by it. Give another output."
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What is the same for all names of a file; None where there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _replaceable(path: Path, ours: Ours) -> bool:
    try:
        return not path.exists() or path.stat().st_size == 0 or ours(path)
    except (OSError, ValueError):  # cannot be read, or is no text: not ours
        return False


def remove_stale(there: Iterable[Path], ours: Ours, written: Iterable[Path]) -> None:
    """Remove what an earlier run of a command left and this one did not write again; other files stay."""
    now = set(written)
    for path in list(there):
        if path not in now and path.is_file() and path.stat().st_size and _replaceable(path, ours):
            path.unlink()


def is_manifest(kind: str) -> Ours:
    """Say how the JSON beside a model is known; ``kind`` is ``onnx`` or ``engine``."""

    def ours(path: Path) -> bool:
        document = json.loads(path.read_bytes())
        return (
            isinstance(document, dict)
            and document.get("kind") == kind
            and isinstance(document.get("schema"), int)
            and "evovit-deploy" in (document.get("versions") or ())
        )

    return ours


def is_records(path: Path) -> bool:
    """Return whether a JSON Lines file holds records of a benchmark or a sweep."""
    with open(path, "rb") as stream:
        record = json.loads(stream.readline())
    return isinstance(record, dict) and "recorded" in record


def mark(command: str) -> str:
    """Say what pages and pictures call the program that made them."""
    return f"evovit {command}"


def is_page(command: str) -> Ours:
    """Say how an HTML page of a command is known: ``<meta name="generator">`` holds its :func:`mark`."""

    def ours(path: Path) -> bool:
        with open(path, "rb") as stream:
            return f'<meta name="generator" content="{mark(command)}">'.encode() in stream.read(_HEAD)

    return ours


def is_picture(command: str) -> Ours:
    """Say how a PNG file of a command is known: its text ``Software`` is its :func:`mark`."""

    def ours(path: Path) -> bool:
        from PIL import Image

        with Image.open(path) as image:
            return image.format == "PNG" and image.info.get("Software") == mark(command)

    return ours


XML = "<?evovit ", "?>"  # the signature holds "--", which no comment of XML may


def signed(text: str, command: str, comment: tuple[str, str] = ("# ", "")) -> str:
    """Return text that ends in a line by which :func:`is_signed` knows it, until it is edited.

    Args:
        text: Of the file, ending in a newline.
        command: That writes it.
        comment: What begins and ends a comment.
    """
    signature = _SIGNATURE.format(command=command, digest=_digest(text))
    return f"{text}{comment[0]}{signature}{comment[1]}\n"


def is_signed(path: Path) -> bool:
    """Return whether a text file is as evovit wrote it: an edited one is the user's."""
    text = path.read_bytes().decode()
    body, _, last = text.rstrip("\n").rpartition("\n")
    found = re.search(
        re.escape(_SIGNATURE).replace(r"\{command\}", ".+").replace(r"\{digest\}", "([0-9a-f]{12})"), last
    )
    return found is not None and found[1] == _digest(body + "\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
