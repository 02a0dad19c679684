"""Optional packages: which there are, what is missing, and how to install it. The package's own metadata is the list."""

from __future__ import annotations

import importlib
import shlex
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from ..errors import EngineError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = [
    "UNNEEDED",
    "distribution_of",
    "extras",
    "install_advice",
    "modules_of",
    "require",
    "requirements_of",
]

PACKAGE = "evovit-deploy"
DEVELOPMENT = "dev"
# What is imported of a package whose module is called otherwise.
IMPORTED_AS = {
    "grpcio": "grpc",
    "tritonclient": "tritonclient.grpc",
    "nvidia-ml-py": "pynvml",
    "tensorrt-rtx": "tensorrt_rtx",
}
UNNEEDED = ("uvloop", "simplejpeg")  # the service runs without, slower or with less to say about a damaged JPEG


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    return [Requirement(line) for line in metadata.requires(PACKAGE) or ()]


@cache
def _all() -> dict[str, tuple[Requirement, ...]]:
    found = _requirements()
    names = metadata.metadata(PACKAGE).get_all("Provides-Extra") or ()

    def of(extra: str) -> list[Requirement]:
        listed: list[Requirement] = []
        for requirement in found:
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                continue  # of the package itself
            if requirement.marker.evaluate({"extra": extra}):
                own = requirement.name == PACKAGE
                listed += (part for name in sorted(requirement.extras) for part in of(name)) if own else [requirement]
        return listed

    return {name: tuple(of(name)) for name in names if name != DEVELOPMENT}


def extras() -> tuple[str, ...]:
    """Return the names of the extras for users, as ``pyproject.toml`` has them."""
    return tuple(_all())


def requirements_of(extra: str) -> tuple[str, ...]:
    """Return what an extra installs on this platform, for pip: ``starlette>=0.45``.

    Raises:
        KeyError: There is no such extra.
    """
    return tuple(_specifier(requirement) for requirement in _all()[extra])


def distribution_of(module: str) -> str:
    """Say what pip installs for a module that the package depends on: ``onnxruntime-gpu`` for ``onnxruntime`` on some
    platforms.
    """
    names = [r.name for r in _requirements() if r.marker is None or r.marker.evaluate({"extra": ""})]
    return next((name for name in names if name == module or name.startswith(f"{module}-")), module)


def modules_of(extra: str) -> dict[str, str]:
    """Return what is imported of each package of an extra: ``{"tritonclient.grpc": "tritonclient[grpc]"}``.

    Raises:
        KeyError: There is no such extra.
    """
    return {IMPORTED_AS.get(r.name, r.name.replace("-", "_")): _titled(r) for r in _all()[extra]}


def install_advice(*names: str) -> str:
    """Say how to install an extra, or one of several, in a form that works wherever the package came from: one sentence."""
    ways = [
        f"the extra `{name}`: pip install -e '.[{name}]' in a checkout, or "
        f"pip install {' '.join(map(shlex.quote, requirements_of(name)))}"
        for name in names
    ]
    return f"Install {', or '.join(ways)}."


def require(extra: str, what: str, *modules: str) -> None:
    """Import what an extra brings, or say what is missing.

    Args:
        extra: Its name.
        what: What needs it, the beginning of the message: ``"serving"``.
        modules: Those that are needed; all but :data:`UNNEEDED` if none is named.

    Raises:
        EngineError: One of them is not installed, or cannot be imported.
    """
    known = modules_of(extra)
    missing: dict[str, str] = {}  # module -> package
    broken = []
    for module in modules or (name for name in known if name not in UNNEEDED):
        title = known.get(module) or known.get(module.partition(".")[0], module)
        try:
            importlib.import_module(module)
        except Exception as error:  # tritonclient raises RuntimeError, and libraries fail in many ways
            absent = next((e.name for e in (error, error.__cause__) if isinstance(e, ModuleNotFoundError)), None)
            if absent is None:
                broken.append(f"{title} is installed and cannot be imported ({type(error).__name__}: {error})")
            elif absent.partition(".")[0] not in missing:  # else it is there, and lacks only what is named already
                missing[module] = title
    if missing:
        listed = sorted(set(missing.values()))
        verb = "is" if len(listed) == 1 else "are"
        raise EngineError(f"{what} needs {', '.join(listed)}, which {verb} not installed. {install_advice(extra)}")
    if broken:
        raise EngineError(f"{what}: {'; '.join(broken)}. {install_advice(extra)}")


def _specifier(requirement: Requirement) -> str:
    return f"{_titled(requirement)}{requirement.specifier}"


def _titled(requirement: Requirement) -> str:
    return requirement.name + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")
