"""Text files from Jinja2 templates: the shipped ones in ``engines/serving``, or one of the user's."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from ..storage.files import check_writable, plain, printable, staged, write_bytes
from ..storage.missing import no_such_file
from ..storage.shipped import data_folder
from .requirements import PACKAGE

__all__ = ["quoted", "render", "write_file", "write_package", "written_by"]


def written_by(command: str) -> str:
    """Say how every file begins that a command of `evovit package` writes."""
    return f"Written by `evovit package {command}` of {PACKAGE} {metadata.version(PACKAGE)}"


def quoted(text: str) -> str:
    """Return text as a double-quoted scalar, which YAML and the exec form of a container file read alike (JSON is a part of
    both).

    Raises:
        InputError: Control characters, which no name or path of ours has to have.
    """
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]", text):
        raise InputError(f"{text!r} holds a control character; rename it.")
    return json.dumps(text, ensure_ascii=False)


def typed(path: str) -> str:
    """Return a path as a word of a command in a comment: on one line, and in quotes where a shell needs them."""
    return shlex.quote(path) if path.isprintable() else f"$'{plain(path)}'"


def render(name: str, template: Path | None, /, **values: Any) -> str:
    """Fill a template.

    Args:
        name: Of the shipped one, such as ``kubernetes.yaml.j2``.
        template: A file to use in its place; it may include the shipped ones by name.
        values: What it may use; a name that is none of them is an error. The filters ``quoted`` and ``typed`` are
            :func:`quoted` and :func:`typed`.

    Raises:
        InputError: The template cannot be read or filled; the message says the line.
    """
    import jinja2

    shipped = data_folder("engines") / "serving"
    path = template or shipped / name
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped),  # for what templates include
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quoted": quoted, "typed": typed}
    try:
        return environment.from_string(path.read_text(encoding="utf-8")).render(values)
    except jinja2.UndefinedError as error:
        raise InputError(f"{path}: {error}. A template may use: {', '.join(sorted(values))}.") from error
    except jinja2.TemplateError as error:
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise InputError(f"{path}{line}: {error}.") from error
    except FileNotFoundError:
        raise no_such_file(path, InputError, "It should hold the template.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the template cannot be read: {error}.") from error


def write_package(folder: Path, texts: dict[str, str], copies: dict[str, Path], *, force: bool) -> list[Path]:
    """Write files of one folder, all or none.

    Args:
        folder: Made if it is missing (its parent must be there).
        texts: File name -> what it holds.
        copies: File name -> the file to copy there.
        force: Overwrite what is there.

    Returns:
        The files, in order of name.

    Raises:
        OutputError: A file is there and ``force`` is not given, or the folder cannot be written.
    """
    paths = [folder / name for name in sorted({*texts, *copies})]
    _check_free(paths, force)
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}.") from error
    try:
        with staged(*paths) as scratch:
            for name, text in texts.items():
                (scratch / name).write_text(text, encoding="utf-8", newline="\n")
            for name, source in copies.items():
                shutil.copyfile(source, scratch / name)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return paths


def write_file(path: Path, text: str, *, force: bool) -> Path:
    """Write one file.

    Raises:
        OutputError: It is there and ``force`` is not given, or it cannot be written.
    """
    check_writable(path)
    _check_free([path], force)
    write_bytes(path, text.encode())
    return path


def _check_free(paths: list[Path], force: bool) -> None:
    there = [printable(path) for path in paths if path.exists()]
    if there and not force:
        raise OutputError(
            f"{', '.join(there)} {'exist' if len(there) > 1 else 'exists'}. Give another name, or use --force."
        )
