"""Names of models: in requests, as folders of a Triton repository, in manifests. One rule for all of them.

A name is at most 100 letters, digits, '_', '-' and '.' of ASCII, the first no '-' or '.'. That is a segment of a URL as it
stands (KServe's v2 protocol), a folder on any system (Triton), and needs no quotes in YAML, a shell or a metric.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from ..errors import InputError

__all__ = ["check_name", "is_name", "label_of", "name_of"]

LONGEST = 100
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST - 1}}}")


def is_name(name: str) -> bool:
    """Return whether this can name a model."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, before: str = "") -> None:
    """Raise InputError, its message beginning with ``before``, unless this can name a model."""
    if not is_name(name):
        raise InputError(
            f"{before}{name!r} is not a model name; use at most {LONGEST} letters, digits, '_', '-' and '.', the first no '-' "
            f"or '.': {name_of(Path(name + '.onnx'))}"
        )


def name_of(path: Path) -> str:
    """Return the name of a model that is given none: the stem of its file, made a name where it is not one.

    Accents go, every run of other characters becomes one '_', and none is left at an end; where nothing is left, it is
    ``model``.
    """
    stem = path.stem
    if is_name(stem):
        return stem
    bare = "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", bare).strip("_.-")[:LONGEST] or "model"


def label_of(text: str) -> tuple[str, str] | None:
    """Return the parts of ``NAME=FILE``, or None for a file alone.

    A file that exists is one whatever is in its name. Otherwise what stands before the first '=' is a name; if it holds a '/',
    the '=' belongs to a folder or a file, unless there is a file after it.
    """
    label, equals, rest = text.partition("=")
    if not equals or os.path.exists(text):
        return None
    if ("/" in label or "\\" in label) and not os.path.exists(rest):
        return None
    return label, rest
