"""The model that is packaged: which files it consists of, and what has to run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..classes.labels import read_labels
from ..engines.base import backend_of
from ..errors import InputError, ModelFileError
from .triton_model import read_model

__all__ = ["Contents", "read_contents"]


@dataclass(frozen=True)
class Contents:
    """A model file that ``evovit serve`` takes.

    Attributes:
        path: The file.
        backend: ``onnxruntime``, ``tensorrt`` or ``tensorrt-rtx``.
        version: TensorRT version that built a plan, else None.
        max_batch: Largest batch, or None for any.
        num_classes: Classes; 0 where no output says.
        manifest: File beside a plan that goes with it, else None.
        labels: File of class names, or None.
    """

    path: Path
    backend: str
    version: str | None
    max_batch: int | None
    num_classes: int
    manifest: Path | None = None
    labels: Path | None = None

    @property
    def is_plan(self) -> bool:
        """Whether it runs on a GPU only."""
        return self.backend != "onnxruntime"


def read_contents(path: Path, labels: Path | None = None) -> Contents:
    """Check a model file as far as it can be without the machine that will serve it: an ONNX file is run once on the CPU, a plan
    is compared with its manifest.

    Args:
        path: ONNX file, or plan with its manifest.
        labels: File of class names that has to fit.

    Raises:
        ModelFileError: Not a model, ONNX with weights in other files, or a plan without a manifest.
        EngineError: A model that does not run, or not the plan that its manifest describes.
        InputError: A checkpoint, or labels for a different number of classes.
    """
    kind = backend_of(path)
    if kind == "pytorch":
        raise InputError(f"{path} is a checkpoint. Export it first: evovit export {path} -o {path.stem}.onnx")
    found = _read_plan(path, labels) if kind == "tensorrt" else _read_onnx(path, labels)
    if labels is not None:
        read_labels(labels, found.num_classes)
    return found


def _read_onnx(path: Path, labels: Path | None) -> Contents:
    model = read_model(path)
    return Contents(path, "onnxruntime", None, model.max_batch, model.num_classes, None, labels)


def _read_plan(path: Path, labels: Path | None) -> Contents:
    from ..engines.trt.engine_manifest import check_file, manifest_path, read_manifest

    document = read_manifest(path)
    header = check_file(path, document)
    if document is None:
        raise ModelFileError(
            f"{path} has no manifest beside it ({manifest_path(path).name}); build it again with evovit."
        )
    try:
        version, batch, classes = str(document["version"]), int(document["batch"]["max"]), int(document["num_classes"])
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFileError(f"{manifest_path(path)} is damaged: {type(error).__name__}: {error}.") from error
    return Contents(path, header.flavour, version, batch, classes, manifest_path(path), labels)
