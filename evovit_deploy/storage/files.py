"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import EvoVitError, OutputError

_LONGEST = 200  # bytes of a name that a temporary one repeats; what is added stays below 55


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on any error it is removed.

    Raises:
        OutputError: The folder is missing or cannot be written, the disk is full, or ``path`` is a device or a pipe.
    """
    path = Path(path)
    _check_ordinary(path)
    try:
        handle, name = tempfile.mkstemp(prefix=_beside(path), suffix=".partial", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Give another place with -o, or make the folder writable."
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; a result should be like any other file
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}. Nothing was left behind.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(*paths: Path) -> Iterator[Path]:
    """Yield a folder beside ``paths`` to write them in; those that are there in the end get their places, on any error none.

    What was at those places before an error is still there, and the error speaks of the places, not of the folder.

    Args:
        paths: Files of one folder.

    Raises:
        OutputError: See :func:`check_writable`.
    """
    for path in paths:
        check_writable(path)
    parent = paths[0].parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=_beside(paths[0]), suffix=".partial", dir=parent))
    except OSError as error:
        raise OutputError(f"cannot write into {parent}: {error.strerror or error}.") from error
    try:
        yield folder
        for path in paths:
            if (folder / path.name).exists():
                os.replace(folder / path.name, path)
    except EvoVitError as error:
        error.args = tuple(str(part).replace(f"{folder}{os.sep}", str(parent / "_")[:-1]) for part in error.args)
        raise
    except OSError as error:
        raise OutputError(f"cannot write {paths[0]}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path) -> str:
    """How the name of a temporary file begins; cut, since a file system takes 255 bytes, and a name may have them all."""
    name = os.fsencode(path.name)[:_LONGEST].decode("utf-8", "ignore")
    return f".{name}."


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document to ``path`` atomically, indented for people."""
    write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())


def check_writable(path: Path) -> None:
    """Raise OutputError now if ``path`` could not be written later, before minutes of work are spent.

    Raises:
        OutputError: ``path`` is a folder, a device or a pipe, its parent does not exist, or the parent cannot be written.
    """
    path = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # raises for a name that no file can have
    except OSError as error:
        raise OutputError(f"cannot write {printable(path)}: {error.strerror or error}. Give another name.") from error
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name, such as {path / 'model.onnx'}.")
    _check_ordinary(path)
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist. Create it first: mkdir -p {path.parent}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {path.parent}: {error.strerror or error}.") from error


def _check_ordinary(path: Path) -> None:
    """Refuse ``/dev/null``, ``/dev/stdout``, pipes and sockets: a file that is moved to its place would replace them."""
    special = path.exists() and not (path.is_file() or path.is_dir())
    if special or (path.is_symlink() and os.readlink(path).startswith("/proc/")):
        raise OutputError(f"{printable(path)} is a device or a pipe, not a file. Give the name of a file.")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def exact(path: Path) -> str:
    """Return the path as valid Unicode, for JSON, CSV and HTML; bytes that are not UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def plain(text: str) -> str:
    """Return text from elsewhere (names, labels, metadata) as one line that a terminal shows and does not obey.

    Control characters, line ends, lone surrogates and what turns the writing direction become escapes such as ``\\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _commands_terminal(c) else c for c in text)


def _commands_terminal(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (
        unicodedata.bidirectional(character) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    )


def printable(path: Path) -> str:
    """Return the path for messages: one line, whatever the name holds; see :func:`plain`."""
    return plain(exact(path))
