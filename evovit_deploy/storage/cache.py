"""Files that several processes share: the timing cache of full TensorRT and the runtime cache of TensorRT-RTX.

TensorRT-RTX has no timing cache (its calls do nothing since 1.2): it chooses kernels without timing them when it builds, and
compiles them when it first runs, which is what its runtime cache keeps.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import OutputError
from .files import write_bytes

__all__ = ["cache_file", "cache_folder", "locked", "merge", "read"]


def cache_folder() -> Path:
    """Return where caches lie: ``$EVOVIT_CACHE``, else ``evovit`` in the user's cache folder."""
    if given := os.environ.get("EVOVIT_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "evovit"


def cache_file(kind: str, flavour: str, version: str, gpu: str, key: str = "") -> Path:
    """Return the path of a cache that is only valid for one flavour, version and GPU.

    Args:
        kind: ``timing`` or ``runtime``.
        flavour, version, gpu: What it is valid for.
        key: What else it belongs to, such as a plan's SHA-256.
    """
    parts = [re.sub(r"[^A-Za-z0-9.-]+", "_", part).strip("_") for part in (flavour, version, gpu, key) if part]
    return cache_folder() / kind / ("-".join(parts) + ".bin")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` (a file beside it) against all other processes and threads that ask for it.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path.with_name(path.name + ".lock"), thread_local=False).acquire()
    except (OSError, NotImplementedError) as error:  # the second: a file system without locks
        raise OutputError(
            f"cannot use the cache {path}: {getattr(error, 'strerror', None) or error}. Set EVOVIT_CACHE to a folder that you "
            "can write to."
        ) from error
    with held:
        yield


def read(path: Path) -> bytes:
    """Return what the cache holds; nothing when there is no such file. A file is replaced whole, so no lock is needed."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def merge(path: Path, ours: bytes, combine: Callable[[bytes, bytes], bytes]) -> None:
    """Add ``ours`` to the cache: under the lock, what is there now is combined with ours and replaced atomically.

    Args:
        path: Cache file.
        ours: What this process knows.
        combine: (what is there, ours) -> both; called only when something is there.

    Raises:
        OutputError: The cache cannot be written.
    """
    with locked(path):
        there = read(path)
        both = combine(there, ours) if there and there != ours else ours
        if both != there:
            write_bytes(path, both)
