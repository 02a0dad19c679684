"""Finds the data folders (`export/`, `engines/`, `bench/`) in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

from ..suggest import did_you_mean

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]


def data_folder(name: str) -> Path:
    """Return the folder ``export``, ``engines`` or ``bench`` that ships with the package.

    A wheel carries them in ``evovit_deploy/_data`` (``force-include`` in pyproject.toml); in an editable install they
    lie beside the package.
    """
    installed = PACKAGE_FOLDER / "_data" / name
    return installed if installed.is_dir() else PACKAGE_FOLDER.parent / name


def find_data_file(name_or_path: str, folder: str, kind: str, error: type[Exception]) -> Path:
    """Resolve what a user typed for a recipe, profile or suite: a shipped name, or a path to a TOML file.

    Args:
        name_or_path: ``evo_deit_small_patch16_224``, or a path.
        folder: Data folder with the shipped files, e.g. ``export`` or ``bench/suites``.
        kind: What to call it in the message: ``recipe``, ``profile``, ``suite``.
        error: The class to raise when there is no such file.
    """
    shipped = data_folder(folder) / f"{name_or_path}.toml"
    if "/" not in name_or_path and "\\" not in name_or_path and shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    hint = did_you_mean(name_or_path, data_names(folder))
    raise error(
        f"no {kind} called {name_or_path!r}, and no such file.{hint} Shipped: {', '.join(data_names(folder)) or 'none'}; "
        f"or give the path of a TOML file."
    )


def data_names(folder: str) -> list[str]:
    """Return the names of the TOML files that ship in a data folder, sorted."""
    return sorted(p.stem for p in data_folder(folder).glob("*.toml"))
