"""The manifest of an engine: a JSON file beside it, which holds its SHA-256."""

from __future__ import annotations

import json
from pathlib import Path

from ..storage.files import sha256

__all__ = ["is_described", "manifest_path"]


def manifest_path(engine: Path) -> Path:
    """Turn ``X.engine`` into ``X.engine.json``."""
    return engine.with_name(engine.name + ".json")


def is_described(path: Path, part: str) -> bool:
    """Return whether a file is the one that the manifest beside it describes under ``part``."""
    try:
        return json.loads(manifest_path(path).read_bytes())[part]["sha256"] == sha256(path)
    except (OSError, ValueError, LookupError, TypeError):
        return False
