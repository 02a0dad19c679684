"""Image files: which formats can be read, finding those in folders, and what to do about the rest."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from ..storage.files import printable
from ..storage.missing import no_such_file

__all__ = ["SUFFIXES", "advice", "find_images", "formats", "readable_suffixes"]

# Raster formats only: Pillow hands some others (EPS) to an external interpreter, which an image from outside must not reach.
_FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "HEIF": (".heic", ".heif", ".hif"),  # of pillow-heif
}
SUFFIXES = frozenset(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
# Pictures too, and nothing here reads them.
# fmt: off
_FOREIGN = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    ".bpg", ".exr", ".hdr", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".jxl", ".jxr", ".qoi", ".wdp",
    ".ai", ".djvu", ".emf", ".eps", ".pdf", ".psb", ".psd", ".svg", ".svgz", ".wmf", ".xcf",
    ".dcm", ".dds", ".dib", ".icns", ".ico", ".pcx", ".tga",
))
# fmt: on
_SHOWN = 8


@functools.lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """Return the formats that this Pillow reads, HEIF among them where pillow-heif is installed."""
    from PIL import Image

    Image.init()
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found,import-untyped,unused-ignore]

        register_heif_opener()
    except ImportError:
        pass
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def readable_suffixes() -> frozenset[str]:
    """Return suffixes of the formats that can be read here."""
    return frozenset(suffix for name in formats() for suffix in _FORMATS[name])


def advice(suffixes: Iterable[str]) -> str:
    """Say what to do about images of these suffixes; empty if none of them is known to be unreadable."""
    unreadable = (SUFFIXES | _FOREIGN) - readable_suffixes()
    left = sorted(unreadable & {suffix.lower() for suffix in suffixes})
    parts = []
    for name, install in (("HEIF", "pip install pillow-heif"), ("AVIF", 'pip install "pillow>=11.3"')):
        named = [suffix for suffix in left if suffix in _FORMATS[name]]
        if named:
            parts.append(f"To read {' and '.join(named)}: {install}")
    rest = [suffix for suffix in left if suffix in _FOREIGN]
    if rest:
        what = f"{', '.join(rest[:-1])} and {rest[-1]}" if rest[1:] else rest[0]
        parts.append(
            f"Convert {what} to JPEG or PNG, for example with ImageMagick: magick mogrify -format png '*{rest[0]}'"
        )
    return ". ".join(parts)


def find_images(paths: Iterable[str | Path], notes: list[str] | None = None) -> list[Path]:
    """Return all images in files and folders, in the order given; a folder's are sorted by path.

    Folders are searched to any depth, through symbolic links too, for the suffixes of the formats that can be read; names
    that begin with a dot are left out. A file named directly is taken whatever its suffix. A path found twice is listed once.

    Args:
        paths: Files and folders.
        notes: What was left out of the folders because nothing here reads its format is appended, with what to do about it.

    Raises:
        InputError: A path that does not exist, or a folder without an image that can be read.
    """
    found: dict[Path, None] = {}
    left_out: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            images, others = _walk(path)
            if not images:
                raise InputError(f"{printable(path)}: {_nothing(path, others)}")
            found.update(dict.fromkeys(images))
            left_out += _pictures(others)
        elif path.is_file():
            found[path] = None
        elif path.exists():
            raise InputError(f"{printable(path)}: neither a file nor a folder.")
        else:
            raise no_such_file(path, InputError, what="file or folder")
    if not found:
        raise InputError("no image was given. Name image files, or folders with images.")
    left_out = [path for path in dict.fromkeys(left_out) if path not in found]
    if left_out and notes is not None:
        notes.append(f"left out, as nothing here reads them: {_counted(left_out)}. {_advice(left_out)}")
    return list(found)


def _pictures(files: Iterable[Path]) -> list[Path]:
    """Those that are pictures by their name."""
    return [path for path in files if path.suffix.lower() in SUFFIXES | _FOREIGN]


def _advice(files: Iterable[Path]) -> str:
    return advice({path.suffix for path in files})


def _counted(files: Iterable[Path]) -> str:
    """``12 .heic and 1 .cr2 (the first: val/IMG_1.heic)``."""
    files = sorted(files)
    counts = Counter(path.suffix.lower() or "without a suffix" for path in files)
    parts = [f"{count} {suffix}" for suffix, count in counts.most_common(_SHOWN)]
    if len(counts) > _SHOWN:
        parts.append(f"{len(counts) - _SHOWN} more kinds")
    return f"{', '.join(parts)} (the first: {printable(Path(*files[0].parts[-2:]))})"


def _nothing(folder: Path, others: list[Path]) -> str:
    pictures = _pictures(others)
    if pictures:
        return f"no image in this folder that can be read, but {_counted(pictures)}. {_advice(pictures)}"
    held = f"; it holds {_counted(others)}" if others else ""
    return f"no image in this folder{held}. Known suffixes: {', '.join(sorted(readable_suffixes()))}."


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """(images, other files) in a folder, each sorted."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: this folder cannot be read: {error.strerror}.") from error

    images: list[Path] = []
    others: list[Path] = []
    readable = readable_suffixes()
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a symbolic link leads back to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                kind = images if os.path.splitext(name)[1].lower() in readable else others
                kind.append(Path(root, name))
    return sorted(images), sorted(others)
