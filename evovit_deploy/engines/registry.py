"""What runs models: one row for each backend, which commands, bench, service, packages and `evovit doctor` read.

A module of this folder ends in ``register(Backend(...))``. Another package adds its own through an entry point of the group
``evovit_deploy.backends`` that names such a module. Nothing here knows a backend, and no row loads its library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import EngineError, InputError, ModelFileError
from ..machine.extras import install_advice
from ..storage.files import printable
from ..storage.missing import no_such_file
from ..suggest import did_you_mean

__all__ = [
    "ENTRY_POINTS",
    "Backend",
    "Sealed",
    "backend_of",
    "backends",
    "broken",
    "find",
    "for_checkpoints",
    "is_engine",
    "is_exported",
    "kind_of",
    "missing_file",
    "names",
    "opener",
    "options_for",
    "providers",
    "register",
    "unregister",
]

ENTRY_POINTS = "evovit_deploy.backends"
Probes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Sealed:
    """What a file and the manifest beside it say, checked against each other without the library or machine that runs it.

    Attributes:
        manifest: The file beside it, which has to travel with it.
        backend: Name of the row that runs it.
        version: Version of the library that made it, which has to run it.
        max_batch: Largest batch; None for any.
        num_classes: Classes; 0 where no output says.
        gpu_only: Whether it runs on a GPU only.
    """

    manifest: Path
    backend: str
    version: str
    max_batch: int | None
    num_classes: int
    gpu_only: bool


@dataclass(frozen=True)
class Backend:
    """One way to run a model.

    Attributes:
        name: As typed after ``--backend`` and given to ``Engine.open``.
        description: One line for `evovit list backends`.
        kind: What its files are: ``checkpoint`` (weights, whose module runs), ``onnx``, or ``engine`` (made for this backend).
        files: What they are called in a message, in the plural: ``TensorRT engines``.
        suffixes: Of its files, lower case; several backends may share one.
        open: ``open(path, provider=, threads=, **options)`` -> Engine; maps foreign errors.
        module: What is imported to run it. Its version is shown, and it is looked for before anything is imported.
        by_default: It opens files of its suffixes where no backend is named; of those that share a suffix, one only.
        accepts: Names of further options of ``Engine.open`` that ``open`` takes.
        providers: Where it can run, of ``cpu``, ``cuda``, ...; the values of ``--provider``.
        any_suffix: It is tried on a file whose suffix belongs to no backend.
        runs_as: ``Engine.backend`` of its engines, if that is not the name.
        platform: What the inference protocol calls it (``onnxruntime_onnx``); the name if empty.
        extra: Extra of this package that installs ``module``.
        built: `evovit build` makes its files from an ONNX file, with the name as its target.
        usable: Of ``providers``, those that work here, given module -> ``state``, ``version`` and what else
            :func:`evovit_deploy.machine.probing.probe_imports` found; called only where ``module`` is installed. By default all.
        elsewhere: What to do where it does not run, one sentence; or given the same as ``usable``, where that depends on it.
        missing: What to do where there is no such file, a sentence with ``{path}`` and ``{stem}`` (the path without suffix).
        describe: Describes a file for `evovit inspect` without running it. ``kind`` in the result says what it is, and
            ``manifest``, if it has one, holds that of the exported model as ``model``. By default size and SHA-256.
        make: ``make(engine, path, batches)`` writes a file from the module of an open ``TorchEngine``, with what goes beside
            it, for these batch sizes; so `evovit bench` measures a checkpoint and its twin.
        sealed: Checks a file for `evovit package`; without it such a file cannot be packaged.
    """

    name: str
    description: str
    kind: Literal["checkpoint", "onnx", "engine"]
    files: str
    suffixes: tuple[str, ...]
    open: Callable[..., Any]
    module: str
    by_default: bool = True
    accepts: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu", "cuda")
    any_suffix: bool = False
    runs_as: str = ""
    platform: str = ""
    extra: str = ""
    built: bool = False
    usable: Callable[[Probes], tuple[str, ...]] | None = None
    elsewhere: str | Callable[[Probes], str] = ""
    missing: str = "Give the path of an existing file."
    describe: Callable[[Path], dict[str, Any]] | None = None
    make: Callable[[Any, Path, tuple[int, ...]], None] | None = None
    sealed: Callable[[Path], Sealed] | None = None

    @property
    def of_checkpoints(self) -> bool:
        """Whether it runs checkpoints, or files that are made of them here."""
        return self.kind in ("checkpoint", "onnx") or self.built or self.make is not None

    def here(self, probes: Probes) -> tuple[tuple[str, ...], str]:
        """Return the providers that work on this machine, and why there is none; one of the two is empty.

        Args:
            probes: Module -> ``state`` (``ok``, ``missing`` or ``broken``), ``version``, ``error``.
        """
        found = probes.get(self.module, {})
        if found.get("state") == "broken":
            return (), f"{self.module} cannot be imported: {found.get('error', 'no reason was given')}"
        if found.get("state") != "ok":
            advice = install_advice(self.extra) if self.extra else f"Install it: pip install {self.module}"
            return (), f"{self.module} is not installed. {advice}"
        usable = self.providers if self.usable is None else self.usable(probes)
        if usable:
            return usable, ""
        why = self.elsewhere if isinstance(self.elsewhere, str) else self.elsewhere(probes)
        return (), why or f"it runs on {' or '.join(self.providers)} only"


_rows: dict[str, Backend] = {}
_broken: dict[str, str] = {}
_lock = threading.RLock()
_asked = False


def register(row: Backend) -> None:
    """Add a backend.

    Raises:
        InputError: There is one of this name, or one that opens the same files by default.
    """
    taken = [name for other in _rows.values() for name in (other.name, other.runs_as)]
    if row.name in ("auto", *filter(None, taken)):
        raise InputError(f"there is a backend {row.name!r} already; give this one another name.")
    for other in _rows.values() if row.by_default else ():
        if shared := [suffix for suffix in row.suffixes if other.by_default and suffix in other.suffixes]:
            raise InputError(
                f"{other.name} and {row.name} both open {', '.join(shared)} by default; register one with by_default=False."
            )
    _rows[row.name] = row


def unregister(name: str) -> None:
    """Take a backend away again; nothing happens if there is none of this name."""
    _rows.pop(name, None)


def backends() -> tuple[Backend, ...]:
    """Return every row: those of this package, and of other packages by their names."""
    global _asked
    if not _asked:
        with _lock:
            if not _asked:
                _asked = True  # first: a module that asks while it is loaded gets what there is
                _load_entry_points()
    return tuple(_rows.values())


def _load_entry_points() -> None:
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            point.load()
        except Exception as error:  # of another package, which must not take every command down
            _broken[point.name] = f"{point.value} cannot be loaded: {type(error).__name__}: {error}"


def broken() -> dict[str, str]:
    """Return name -> problem of the entry points of other packages that could not be loaded."""
    backends()
    return dict(_broken)


def for_checkpoints(
    probes: Probes, provider: str = "auto", only: Collection[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the backends that run a checkpoint, or a file made of it, on this machine; and of the others, why not.

    Args:
        probes: As for :meth:`Backend.here`.
        provider: Where they have to run; ``auto`` is anywhere.
        only: Names; empty is every backend.
    """
    here, left_out = [], {}
    for row in backends():
        usable, why = row.here(probes)
        if only and row.name not in only:
            continue
        if not row.of_checkpoints:
            left_out[row.name] = f"it runs {row.files}, and makes none of a checkpoint"
        elif not usable:
            left_out[row.name] = why
        elif provider not in ("auto", *usable):
            left_out[row.name] = f"it runs on {', '.join(usable)} here, not on {provider}"
        else:
            here.append(row.name)
    return tuple(here), left_out


def names() -> tuple[str, ...]:
    """Return what ``--backend`` takes: ``auto``, and every backend."""
    return ("auto", *(row.name for row in backends()))


def providers() -> tuple[str, ...]:
    """Return what ``--provider`` takes: ``auto``, and wherever any backend runs."""
    return ("auto", *dict.fromkeys(provider for row in backends() for provider in row.providers))


def find(name: str) -> Backend | None:
    """Return the row of this name, or the one whose engines call themselves so (``torch.compile``)."""
    return next((row for row in backends() if name in (row.name, row.runs_as or row.name)), None)


def kind_of(backend: str) -> str | None:
    """Return what an engine that calls itself so was made of: ``checkpoint``, ``onnx``, ``engine``; None if nobody knows."""
    row = find(backend)
    return None if row is None else row.kind


def backend_of(path: str | Path) -> Backend | None:
    """Return the row that a file's suffix belongs to, or None if it belongs to none."""
    return next(iter(_claims(path)), None)


def is_exported(path: str | Path) -> bool:
    """Whether a file is, by its suffix, one whose precision and input are settled: anything but a checkpoint."""
    row = backend_of(path)
    return row is not None and row.kind != "checkpoint"


def is_engine(path: str | Path) -> bool:
    """Whether a file is, by its suffix, an engine of any backend."""
    row = backend_of(path)
    return row is not None and row.kind == "engine"


def _claims(path: str | Path) -> list[Backend]:
    """The backends of a file's suffix, first the one that opens it by default."""
    suffix = Path(path).suffix.lower()
    return sorted((row for row in backends() if suffix in row.suffixes), key=lambda row: not row.by_default)


def opener(path: str | Path, backend: str = "auto") -> Backend:
    """Return the row that opens a file.

    Args:
        path: The file; only its name is looked at.
        backend: A name, or ``auto``: by the suffix.

    Raises:
        EngineError: There is no such backend.
        InputError: The file belongs to another backend.
    """
    claims = _claims(path)
    if backend == "auto":
        return claims[0] if claims else next(row for row in backends() if row.any_suffix)
    row = find(backend)
    if row is None:
        raise EngineError(
            f"backend {backend!r} is unknown; valid: {', '.join(names())}.{did_you_mean(backend, names())}"
        )
    if claims and row not in claims:
        raise InputError(
            f"{path} is for {claims[0].name}, going by its name, and {row.name} cannot run it. Leave the backend out."
        )
    return row


def missing_file(path: Path, backend: str = "auto") -> ModelFileError:
    """Return the error of a file that is not there, with how its backend's files are made."""
    owner = find(backend) or opener(path)
    stem = printable(path.parent / path.stem)
    return no_such_file(path, ModelFileError, owner.missing.format(path=printable(path), stem=stem))


def options_for(row: Backend, path: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, which are those not None.

    Raises:
        InputError: One that this backend does not have, and would ignore.
    """
    given = {name: value for name, value in options.items() if value is not None}
    foreign = [name for name in given if name not in row.accepts]
    if not foreign:
        return given
    owners = [other for other in backends() if set(foreign) <= set(other.accepts)]
    if not owners:
        known = [name for other in backends() for name in other.accepts]
        unknown = next((name for name in foreign if name not in known), foreign[0])
        raise InputError(
            f"{path} is opened with {row.name}, which has no option {unknown!r}.{did_you_mean(unknown, known)}"
        )
    *first, last = dict.fromkeys(other.files for other in owners)
    files = f"{', '.join(first)} and {last}" if first else last
    raise InputError(f"{path} is opened with {row.name}, and {', '.join(foreign)} is for {files} only. Leave it out.")
