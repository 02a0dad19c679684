"""The wheel of this package, made of what is installed: of a checkout or of a wheel, without network or build tools."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipInfo

from ..errors import EngineError, InputError, OutputError, translate
from ..storage.shipped import PACKAGE_FOLDER, data_folder
from .requirements import PACKAGE

if TYPE_CHECKING:
    from wheel.wheelfile import WheelFile

__all__ = ["DATA", "make_wheel"]

DATA = ("export", "engines", "bench/suites", "bench/images")  # as in pyproject.toml
MODULES = PACKAGE.replace("-", "_")
TAG = "py3-none-any"
KEPT = ("METADATA", "entry_points.txt")  # of what describes an installation; the rest is about this machine


def make_wheel(folder: Path) -> Path:
    """Write the wheel of this package; the same files make the same bytes.

    Args:
        folder: Where it goes.

    Raises:
        EngineError: ``wheel`` is not installed.
        InputError: This installation lacks its own description.
        OutputError: It cannot be written.
    """
    version = metadata.version(PACKAGE)
    path = folder / f"{MODULES}-{version}-{TAG}.whl"
    with translate(OutputError, f"cannot write {path.name}", OSError), _open(path) as wheel:
        for name, data in _files():
            wheel.writestr(name, data)
        about = f"Wheel-Version: 1.0\nGenerator: {PACKAGE} {version}\nRoot-Is-Purelib: true\nTag: {TAG}\n"
        wheel.writestr(f"{wheel.dist_info_path}/WHEEL", about)
        for name, data in _described():
            wheel.writestr(f"{wheel.dist_info_path}/{name}", data)
    return path


def _open(path: Path) -> WheelFile:
    try:
        from wheel.wheelfile import WheelFile
    except ModuleNotFoundError as error:  # as in a container, which needs it no more
        raise EngineError(
            f"packing {PACKAGE} needs wheel, which is not installed. Install it: pip install wheel; or give --wheel FILE."
        ) from error

    class Dateless(WheelFile):  # type: ignore[misc]
        """Files get no date of today, so that their wheel stays the same while they do."""

        def writestr(self, zinfo_or_arcname: Any, data: Any, compress_type: int | None = None) -> None:
            info = ZipInfo(str(zinfo_or_arcname))
            info.compress_type, info.external_attr = ZIP_DEFLATED, 0o100644 << 16
            super().writestr(info, data, compress_type)

    return Dateless(path, "w")


def _files() -> Iterator[tuple[str, bytes]]:
    """Modules, and the data folders at the places where a wheel has them."""
    places = {MODULES: PACKAGE_FOLDER, **{f"{MODULES}/_data/{name}": data_folder(name) for name in DATA}}
    for place, folder in places.items():
        for file in sorted(folder.rglob("*")):
            parts = file.relative_to(folder).parts
            if not file.is_file() or "__pycache__" in parts or (place == MODULES and parts[0] == "_data"):
                continue
            yield "/".join((place, *parts)), file.read_bytes()


def _described() -> Iterator[tuple[str, bytes]]:
    here = metadata.distribution(PACKAGE)
    for name in KEPT:
        text = here.read_text(name)
        if text is None:
            raise InputError(f"this installation of {PACKAGE} has no {name}. Reinstall it, or give --wheel FILE.")
        yield name, text.encode()
    for file in here.files or ():
        if file.parts[0].endswith(".dist-info") and file.parts[1] == "licenses":
            yield "/".join(file.parts[1:]), file.read_binary()
