"""What a server has to know about a model file: run an ONNX file once, or read a plan's manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..classes.output_names import PLACES, output_of
from ..classes.scores import scores_output
from ..engines.registry import missing_file, opener
from ..errors import EngineError, InputError, ModelFileError
from ..manifest.onnx_file import load_onnx
from ..serve.tensors import DATATYPES, TensorInfo

__all__ = ["TritonModel", "read_model"]

FLOATS = ("FP16", "FP32", "FP64")


@dataclass(frozen=True)
class TritonModel:
    """What Triton has to know about a model.

    Attributes:
        path: The file.
        backend: ``onnxruntime`` or ``tensorrt``.
        input, outputs: Names, types, and shapes without the batch.
        num_classes: Classes; 0 where no output says.
        batch: The only batch size, or None.
        preferred: Batch size that a plan is tuned for, or None.
        max_batch: Largest batch, or None for any.
    """

    path: Path
    backend: str
    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    num_classes: int
    batch: int | None
    preferred: int | None
    max_batch: int | None

    @property
    def scores(self) -> str | None:
        """The output that holds the class scores, or None."""
        return scores_output(info.name for info in self.outputs if len(info.shape) == 1 and info.datatype in FLOATS)


def read_model(path: Path) -> TritonModel:
    """Run an ONNX file once on the CPU, or read the manifest of a plan.

    Raises:
        ModelFileError: Not a model, ONNX with weights in other files, or a plan without a manifest.
        EngineError: A plan that Triton has no backend for, or a model that does not run.
        InputError: A file of a backend that Triton does not have.
    """
    row = opener(path)
    if row.kind == "onnx":
        return _read_onnx(path)
    if row.platform != "tensorrt_plan":
        raise InputError(f"{path} is for {row.name}, which Triton has no backend for. Package the ONNX file.")
    return _read_plan(path)


def _read_onnx(path: Path) -> TritonModel:
    from ..engines import OrtEngine

    if not path.is_file():
        raise missing_file(path)
    _refuse_external_data(path)
    with OrtEngine(path, provider="cpu") as engine:
        spec = engine.spec
        results = engine(np.zeros((spec.batch or 1, *spec.image_shape), spec.input))
        name = str(engine.session.get_inputs()[0].name)
    outputs = tuple(TensorInfo(key, DATATYPES[value.dtype.name], value.shape[1:]) for key, value in results.items())
    image = TensorInfo(name, DATATYPES[spec.input], spec.image_shape)
    return TritonModel(path, "onnxruntime", image, outputs, spec.num_classes, spec.batch, None, spec.batch)


def _refuse_external_data(path: Path) -> None:
    from onnx.external_data_helper import uses_external_data

    if any(uses_external_data(tensor) for tensor in load_onnx(path).graph.initializer):
        raise ModelFileError(f"{path} keeps weights in other files; save it as one file first.")


def _read_plan(path: Path) -> TritonModel:
    from ..engines.trt.engine_manifest import described, rebuild_command

    header, document = described(path)
    if header.flavour != "tensorrt":
        raise EngineError(
            f"{path} is an engine of {header.flavour}, and Triton has no backend for it. Package the ONNX file, or build with: "
            f"{rebuild_command(path, document, 'tensorrt')}"
        )
    io, batch = document["io"], document["batch"]
    image = io["input"]
    outputs = tuple(
        # Class scores and sizes are float32, kept positions and sources int64, whatever the precision inside.
        TensorInfo(name, "INT64" if output_of(name) in PLACES else "FP32", tuple(shape[1:]))
        for name, shape in io["outputs"].items()
    )
    static = batch["max"] if batch["min"] == batch["max"] else None
    info = TensorInfo(image["name"], DATATYPES[image["dtype"]], tuple(image["shape"][1:]))
    return TritonModel(
        path, "tensorrt", info, outputs, document["num_classes"] or 0, static, batch["opt"], batch["max"]
    )
