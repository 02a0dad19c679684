"""Build profiles: one TOML file a target in ``engines/``, holding the build options that suit it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..engines.trt.options import BuildOptions
from ..errors import RecipeError
from ..storage.shipped import data_names, find_data_file
from ..storage.tables import build_table, read_toml

__all__ = ["BuildProfile", "load_profile", "profile_names"]


@dataclass(frozen=True)
class BuildProfile:
    """One target.

    Attributes:
        name: File stem.
        description: One line.
        gpus: GPU names it is meant for.
        compute_capability: Of those GPUs, or empty.
        reasons: Why its options are what they are; what was measured and what was not.
        options: The build options.
    """

    name: str
    description: str
    reasons: str
    gpus: tuple[str, ...] = ()
    compute_capability: str = ""
    options: BuildOptions = dataclasses.field(default_factory=BuildOptions)

    def with_options(self, **given: Any) -> BuildOptions:
        """Return the profile's options, with those overruled that are given (not None).

        A given static batch replaces the profile's dynamic one, and the other way round.
        """
        given = {name: value for name, value in given.items() if value is not None}
        base = self.options
        dynamic = {"min_batch", "opt_batch", "max_batch"}
        if "batch" in given:
            base = dataclasses.replace(base, min_batch=None, opt_batch=None, max_batch=None)
        elif dynamic & set(given):
            base = dataclasses.replace(base, batch=None)
            # An optimum of the profile that is now out of range is not what was asked for.
            low, high = given.get("min_batch", base.min_batch or 1), given.get("max_batch", base.max_batch or 64)
            if "opt_batch" not in given and base.opt_batch is not None and not low <= base.opt_batch <= high:
                base = dataclasses.replace(base, opt_batch=None)
        return dataclasses.replace(base, **given)


def profile_names() -> list[str]:
    """Return the names of the shipped profiles."""
    return data_names("engines")


def load_profile(name_or_path: str) -> BuildProfile:
    """Load a shipped profile by name, or any TOML file by path.

    Raises:
        RecipeError: No such profile, not TOML, unknown keys or impossible values.
    """
    path = find_data_file(str(name_or_path), "engines", "profile", RecipeError)
    document = read_toml(path)
    options = build_table(BuildOptions, document.pop("options", {}), f"{path}: options")
    if "name" in document:
        raise RecipeError(f"{path}: unknown key 'name'; a profile is called what its file is called.")
    return build_table(BuildProfile, {"name": path.stem, **document, "options": options}, str(path))
