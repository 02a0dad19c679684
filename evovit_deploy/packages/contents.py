"""The model that is packaged: which files it consists of, and what has to run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..classes.labels import read_labels
from ..engines.registry import opener
from ..errors import InputError
from .triton_model import read_model

__all__ = ["Contents", "read_contents"]


@dataclass(frozen=True)
class Contents:
    """A model file that ``evovit serve`` takes.

    Attributes:
        path: The file.
        backend: Name of what runs it.
        version: Version of the library that made an engine, else None.
        max_batch: Largest batch, or None for any.
        num_classes: Classes; 0 where no output says.
        manifest: File beside an engine that goes with it, else None.
        labels: File of class names, or None.
        gpu_only: Whether it runs on a GPU only.
    """

    path: Path
    backend: str
    version: str | None
    max_batch: int | None
    num_classes: int
    manifest: Path | None = None
    labels: Path | None = None
    gpu_only: bool = False


def read_contents(path: Path, labels: Path | None = None) -> Contents:
    """Check a model file as far as it can be without the machine that serves it: an ONNX file is run once on the CPU, an engine
    is compared with its manifest.

    Args:
        path: ONNX file, or engine with its manifest.
        labels: File of class names that has to fit.

    Raises:
        ModelFileError: Not a model, ONNX with weights in other files, or an engine without a manifest.
        EngineError: A model that does not run, or not the engine that its manifest describes.
        InputError: A checkpoint, an engine that cannot be packaged, or labels for a different number of classes.
    """
    row = opener(path)
    if row.kind == "checkpoint":
        raise InputError(f"{path} is a checkpoint. Export it first: evovit export {path} -o {path.stem}.onnx")
    if row.kind == "onnx":
        model = read_model(path)
        found = Contents(path, row.name, None, model.max_batch, model.num_classes, None, labels)
    elif row.sealed is None:
        raise InputError(f"{path} is for {row.name}, whose files cannot be packaged. Package the ONNX file.")
    else:
        told = row.sealed(path)
        found = Contents(
            path, told.backend, told.version, told.max_batch, told.num_classes, told.manifest, labels, told.gpu_only
        )
    if labels is not None:
        read_labels(labels, found.num_classes)
    return found
