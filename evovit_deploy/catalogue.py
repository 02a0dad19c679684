"""What there is to choose from: shipped recipes, profiles, suites and baselines, the backends, and the ViTs of timm that work.

Each kind is a list of rows, one dict each; only :func:`timm_models` loads torch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

from .errors import InputError

__all__ = ["KINDS", "OPTIONS", "baselines", "families", "profiles", "recipes", "suites", "timm_models"]

Row = dict[str, Any]
# Where the vision transformers are that `structure_of` takes; those of other modules of timm are other classes.
_TIMM_MODULES = ("vision_transformer", "deit")


def recipes() -> list[Row]:
    """List the shipped recipes: family, image size in pixels, keep ratios and published top-1 (None where there is none)."""
    from .recipes import load_recipe, recipe_names

    rows = []
    for recipe in map(load_recipe, recipe_names()):
        kept = sorted({ratio for ratio in recipe.evolution.keep_ratios if ratio < 1}, reverse=True)
        rows.append(
            {
                "name": recipe.name,
                "family": recipe.family,
                "image_size": recipe.structure.image_size,
                "keep": kept,
                "published_top1": recipe.published.top1,
                "baseline": recipe.baseline,
            }
        )
    return rows


def families() -> list[Row]:
    """List the families of models: what a checkpoint or recipe of each is called, and the vanilla model it is compared with."""
    from .models.families import families as rows

    return [
        {"name": row.name, "description": row.label, "vanilla": row.vanilla.name, "method": row.method or None}
        for row in rows()
    ]


def profiles() -> list[Row]:
    """List the shipped build profiles: what each is for, and its flavour of TensorRT."""
    from .building.profiles import load_profile, profile_names

    found = map(load_profile, profile_names())
    return [{"name": p.name, "target": p.options.target or "auto", "description": p.description} for p in found]


def suites() -> list[Row]:
    """List the shipped benchmark suites: what each measures, and how many runs it takes."""
    from .bench.suites import load_suite, suite_names

    found = map(load_suite, suite_names())
    return [{"name": s.name, "runs": len(s.groups), "description": s.description} for s in found]


def baselines() -> list[Row]:
    """List the vanilla models that a recipe is measured against, and that recipe."""
    from .recipes import baselines, load_recipe

    found = {name: load_recipe(recipe) for name, recipe in baselines().items()}
    return [
        {"name": name, "image_size": recipe.structure.image_size, "recipe": recipe.name}
        for name, recipe in found.items()
    ]


def backends() -> list[Row]:
    """List what runs models: the files each takes, and the installed version of its package (None if it is missing)."""
    from .engines import registry
    from .machine.facts import package_version

    return [
        {
            "name": row.name,
            "files": " ".join(row.suffixes),
            "installed": package_version(row.module),
            "description": row.description,
        }
        for row in registry.backends()
    ]


def timm_models(pattern: str = "*", on_progress: Callable[[int, int], None] = lambda done, total: None) -> list[Row]:
    """List the ViTs of timm that ``--from-timm`` takes, found by making each of them without values: some 10 s for all.

    Args:
        pattern: Names to look at, with ``*`` for any part.
        on_progress: Called with how many have been looked at, and how many there are.

    Returns:
        Name, image size and patch size in pixels, embed dim, depth, heads and registers of each.
    """
    import timm

    from .models.vit.timm_names import create
    from .models.vit.timm_vit import structure_of

    names = sorted({name for module in _TIMM_MODULES for name in timm.list_models(pattern, module=module)})
    rows = []
    for done, name in enumerate(names):
        on_progress(done, len(names))
        try:
            s = structure_of(create(name), name)
        except InputError:
            continue
        rows.append(
            {
                "name": name,
                "image_size": s.image_size,
                "patch_size": s.patch_size,
                "embed_dim": s.embed_dim,
                "depth": s.depth,
                "num_heads": s.num_heads,
                "registers": s.registers,
            }
        )
    on_progress(len(names), len(names))
    return rows


def matching(rows: list[Row], pattern: str) -> list[Row]:
    """Keep the rows whose name fits a pattern: ``*`` stands for any part, and a plain word may be anywhere in the name."""
    whole = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [row for row in rows if fnmatch.fnmatchcase(row["name"].lower(), whole.lower())]


KINDS: dict[str, Callable[[], list[Row]]] = {
    "recipes": recipes,
    "families": families,
    "profiles": profiles,
    "suites": suites,
    "baselines": baselines,
    "backends": backends,
}
# Which option takes a name of each kind.
OPTIONS = {
    "recipes": "--recipe NAME",
    "families": "family = NAME in a recipe",
    "profiles": "--profile NAME",
    "suites": "--suite NAME",
    "baselines": "--baseline NAME",
    "backends": "--backend NAME",
    "timm": "--from-timm NAME",
}
