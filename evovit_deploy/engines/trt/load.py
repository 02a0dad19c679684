"""From a plan on disk to a deserialised engine, and what its tensors say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ...classes.scores import scores_output
from ...errors import EngineError, ModelFileError
from ...manifest.spec import ModelSpec
from ...storage.files import sha256
from ...storage.names import name_of
from ..cuda.slot import SlotTensor
from . import engine_manifest
from .api import Api
from .options import BatchProfile

__all__ = ["engine_tensors", "load_plan", "model_spec"]

_TORCH = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32", "UINT8": "uint8", "BOOL": "bool"}
_PRECISIONS = ("fp32", "fp16", "bf16")


def load_plan(api: Api, logger: Any, path: Path, document: dict[str, Any] | None) -> Any:
    """Deserialise a plan that was checked (:func:`engine_manifest.check_file` and ``check_environment``).

    Raises:
        EngineError: TensorRT refuses it.
    """
    options = document["options"] if document else {}
    runtime = api.trt.Runtime(logger)
    if options.get("version_compatible"):
        runtime.engine_host_code_allowed = True  # such a plan carries the runtime that it needs
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise EngineError(
            f"{api.title} cannot load {path}: {logger.kept.problem()}. Build it on this machine: "
            f"{engine_manifest.rebuild_command(path, document, api.flavour)}"
        )
    if options.get("strip_plan"):
        _refit(api, logger, engine, path, document or {})
    return engine


def _refit(api: Api, logger: Any, engine: Any, path: Path, document: dict[str, Any]) -> None:
    """Give a plan without weights those of its ONNX file, which has to lie beside it."""
    onnx = path.with_name(document["onnx"]["file"])
    if not onnx.is_file() or sha256(onnx) != document["onnx"]["sha256"]:
        raise EngineError(
            f"{path} has no weights in it (strip_plan), and {onnx}, whose weights it needs, is missing or a different file. Copy "
            f"the ONNX file it was built from there."
        )
    refitter = api.trt.Refitter(engine, logger)
    parser = api.trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
        raise EngineError(f"{api.title} cannot put the weights of {onnx} into {path}: {logger.kept.problem()}.")


def engine_tensors(engine: Any, path: Path) -> tuple[SlotTensor, tuple[SlotTensor, ...], BatchProfile]:
    """Return the image input, the outputs, and the batch profile of a deserialised engine.

    Raises:
        ModelFileError: Not one image input, or a type that PyTorch does not have.
    """
    import torch

    inputs: list[tuple[SlotTensor, int]] = []
    outputs: list[tuple[SlotTensor, int]] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = _enum_name(engine.get_tensor_dtype(name))
        if kind not in _TORCH:
            raise ModelFileError(f"{path}: {name} is {kind}; inputs and outputs must be one of {', '.join(_TORCH)}.")
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        info = SlotTensor(name, shape[1:], getattr(torch, _TORCH[kind]))
        is_input = _enum_name(engine.get_tensor_mode(name)) == "INPUT"
        (inputs if is_input else outputs).append((info, shape[0]))
    if len(inputs) != 1 or not outputs:
        names = ", ".join(info.name for info, _ in inputs)
        raise ModelFileError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one.")
    image, batch = inputs[0]
    if any(size < 0 for info, _ in (*inputs, *outputs) for size in info.shape):
        raise ModelFileError(f"{path}: only the batch may be dynamic.")
    if batch >= 0:
        profile = BatchProfile(batch, batch, batch)
    else:
        profile = BatchProfile(*(int(shape[0]) for shape in engine.get_tensor_profile_shape(image.name, 0)))
    return image, tuple(info for info, _ in outputs), profile


def model_spec(
    document: dict[str, Any] | None,
    image: SlotTensor,
    outputs: tuple[SlotTensor, ...],
    profile: BatchProfile,
    path: Path,
) -> ModelSpec:
    """Return the spec from the manifest, held against the engine itself; from the engine alone where there is no manifest.

    Raises:
        ModelFileError: The input is not a batch of square RGB images, or the manifest is damaged.
        EngineError: The manifest describes other inputs or outputs.
    """
    kind = str(image.dtype).removeprefix("torch.")
    shape = image.shape
    floats, pixels = kind == "float32" and shape[:1] == (3,), kind == "uint8" and shape[2:] == (3,)
    if len(shape) != 3 or not (floats or pixels) or shape[1] != shape[2 if floats else 0]:
        raise ModelFileError(f"{path}: input {image.name} {kind} {list(shape)} is not a batch of square RGB images.")
    names = tuple(info.name for info in outputs)
    candidates = {info.name: info.shape for info in outputs if len(info.shape) == 1 and info.dtype.is_floating_point}
    scores = scores_output(candidates)
    found = ModelSpec(
        name=document["name"] if document else name_of(path),
        image_size=shape[1],
        input=kind,
        num_classes=0 if scores is None else candidates[scores][0],
        outputs=names,
        batch=profile.static,
        max_batch=profile.max,
        precision=str(document["precision"]) if document else "unknown",
        scores=scores,
    )
    if document is None or document["model"] is None:
        return found
    told = ModelSpec.from_manifest(document["model"], str(engine_manifest.manifest_path(path)))
    spec = dataclasses.replace(told, batch=profile.static, max_batch=profile.max, precision=found.precision)
    if set(spec.outputs) != set(names) or (spec.image_size, spec.input) != (found.image_size, found.input):
        raise EngineError(
            f"{path} takes {kind} {list(shape)} and gives {', '.join(names)}, which is not what its manifest describes. Build it "
            f"again: {engine_manifest.rebuild_command(path, document)}"
        )
    return spec


def _enum_name(value: Any) -> str:
    """``DataType.HALF`` -> ``HALF``."""
    return str(value).rsplit(".", 1)[-1]
