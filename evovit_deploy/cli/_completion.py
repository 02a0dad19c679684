"""Values that the shell completes beside those of a fixed choice; everything else is completed as a file name."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "backends", "backends_and_all", "baselines", "measured_against", "methods", "outputs", "profiles", "providers", "recipes",
    "schedules", "suites",
]  # fmt: skip


def backends(incomplete: str) -> list[str]:
    """Complete what runs models."""
    from ..engines.registry import names

    return _starting(names(), incomplete)


def backends_and_all(incomplete: str) -> list[str]:
    """Complete what runs models where all of them may run."""
    from ..engines.registry import names

    return _starting((*names(), "all"), incomplete)


def providers(incomplete: str) -> list[str]:
    """Complete where models run."""
    from ..engines.registry import providers

    return _starting(providers(), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Complete the name of a recipe."""
    from ..recipes import recipe_names

    return _starting(recipe_names(), incomplete)


def profiles(incomplete: str) -> list[str]:
    """Complete the name of a build profile."""
    from ..building.profiles import profile_names

    return _starting(profile_names(), incomplete)


def suites(incomplete: str) -> list[str]:
    """Complete the name of a benchmark suite."""
    from ..bench.suites import suite_names

    return _starting(suite_names(), incomplete)


def baselines(incomplete: str) -> list[str]:
    """Complete the name of a vanilla model."""
    from ..recipes import baseline_names

    return _starting(baseline_names(), incomplete)


def measured_against(incomplete: str) -> list[str]:
    """Complete the last of what speedups are measured against: `twin,st` to `twin,stock`."""
    from ..bench.settings import KINDS

    *before, last = incomplete.split(",")
    left = ("auto", *KINDS, "none") if not before else [name for name in KINDS if name not in before]
    return [",".join((*before, name)) for name in _starting(left, last)]


def schedules(incomplete: str) -> list[str]:
    """Complete a schedule."""
    return _starting(("stage", "layer"), incomplete)


def methods(incomplete: str) -> list[str]:
    """Complete what goes on a ViT of timm."""
    from ..models.families import methods

    return _starting(methods(), incomplete)


def outputs(incomplete: str) -> list[str]:
    """Complete the last of several outputs: `logits,k` to `logits,kept`."""
    from ..models.outputs import KINDS

    *before, last = incomplete.split(",")
    left = [f"{name}=" if name.endswith("blocks") else name for name in KINDS if name not in before]
    return [",".join((*before, name)) for name in _starting(left, last)]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
