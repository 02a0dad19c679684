"""Every error that this package raises on purpose, in one tree.

    EvoVitError                      exit 1   anything below
    ├── CheckpointError              exit 1   a checkpoint that cannot be read, trusted or recognised
    ├── RecipeError                  exit 2   a recipe, profile or suite with unknown keys or impossible values
    ├── ExportError                  exit 1   a model that could not be turned into ONNX
    ├── ModelFileError               exit 1   an ONNX or engine file that cannot be read or is not ours
    ├── InputError                   exit 2   images, shapes or options that the model cannot take
    ├── OutputError                  exit 1   a result that could not be written (disk full, no permission)
    ├── ParityError                  exit 3   outputs that differ by more than the tolerance
    ├── PlanError                    exit 3   a built plan that is not what was asked for (precision, fusion, kernels)
    ├── EngineError                  exit 4   an engine that this machine or environment cannot run
    ├── Overloaded                   exit 1   a request refused because the queue is full or the service is stopping
    ├── DeadlineExceeded             exit 1   a request whose time ran out before it was answered
    └── UnstableMeasurement          exit 5   a measurement that did not settle (only under ``--strict``)

An input file or folder that does not exist exits 2, whichever of these says so (:func:`.no_such_file`).

Errors of torch, onnx, onnxruntime and tensorrt are turned into these once, where the library is called. A message says
what was found, in which file or tensor, what is valid, and how to fix it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = [
    "CheckpointError",
    "DeadlineExceeded",
    "EngineError",
    "EvoVitError",
    "ExportError",
    "InputError",
    "ModelFileError",
    "OutputError",
    "Overloaded",
    "ParityError",
    "PlanError",
    "RecipeError",
    "UnstableMeasurement",
    "translate",
]


class EvoVitError(Exception):
    """Base of every error of this package; ``exit_code`` is what the command line exits with."""

    exit_code = 1


class CheckpointError(EvoVitError):
    """A checkpoint that cannot be read, cannot be trusted, or is not a model this package knows."""


class RecipeError(EvoVitError):
    """A recipe, build profile or benchmark suite with an unknown key or an impossible value."""

    exit_code = 2


class ExportError(EvoVitError):
    """A model that could not be turned into ONNX."""


class ModelFileError(EvoVitError):
    """An ONNX or engine file that cannot be read, or that was not made by this package."""


class InputError(EvoVitError):
    """Images, shapes, dtypes or options that the model cannot take."""

    exit_code = 2


class OutputError(EvoVitError):
    """A result that could not be written; nothing half-written is left behind."""


class ParityError(EvoVitError):
    """Two models whose outputs differ by more than the tolerance of the recipe."""

    exit_code = 3


class PlanError(EvoVitError):
    """A built plan that is not what was asked for: precision, fused attention, number of kernels."""

    exit_code = 3


class EngineError(EvoVitError):
    """An engine or execution provider that does not run in this environment."""

    exit_code = 4


class Overloaded(EvoVitError):
    """A request that was refused, and not begun: the queue is full, or the service is stopping. Try it again later."""


class DeadlineExceeded(EvoVitError):
    """A request whose time ran out before it was answered."""


class UnstableMeasurement(EvoVitError):
    """A measurement whose windows disagree; raised only under ``--strict``."""

    exit_code = 5


@contextlib.contextmanager
def translate(to: type[EvoVitError], what: str, *foreign: type[BaseException]) -> Iterator[None]:
    """Turn a foreign exception into ``to`` with a message that begins with ``what``.

    Args:
        to: The class of this tree to raise.
        what: What was being done, e.g. ``"reading model.onnx"``.
        foreign: The exception classes to translate; ``Exception`` when none is given.

    Errors of this tree pass through unchanged.
    """
    try:
        yield
    except EvoVitError:
        raise
    except BaseException as error:
        if not isinstance(error, foreign or Exception):
            raise
        reason = str(error).strip() or type(error).__name__
        raise to(f"{what}: {reason}") from error
