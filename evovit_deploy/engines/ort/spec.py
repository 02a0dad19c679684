"""What an ONNX file says of itself: its manifest, or its inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ... import manifest as manifests
from ...classes.scores import scores_output
from ...errors import ModelFileError
from ...manifest.spec import ModelSpec
from ...storage.names import name_of

__all__ = ["spec_of"]

FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)")


def _check_graph(session_: Any, spec: ModelSpec, path: Path) -> None:
    """Raise ModelFileError if the graph is not what the manifest says, as after one of them was edited."""
    given = [output.name for output in session_.get_outputs()]
    if missing := [name for name in spec.outputs if name not in given]:
        raise ModelFileError(
            f"{path}: its evovit manifest names the output {missing[0]}, and its graph gives {', '.join(given)}. Export the "
            "model again: evovit export CKPT"
        )
    inputs = [(one.type, tuple(one.shape[1:])) for one in session_.get_inputs()]
    kind = "tensor(uint8)" if spec.input == "uint8" else "tensor(float)"
    if inputs != [(kind, spec.image_shape)]:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in inputs) or "nothing"
        raise ModelFileError(
            f"{path}: its evovit manifest says that it takes {kind} {list(spec.image_shape)} an image, and its graph takes "
            f"{found}. Export the model again: evovit export CKPT"
        )


def spec_of(session_: Any, path: Path) -> ModelSpec:
    """Return the spec from the manifest, or from the input and output shapes for a file of another tool."""
    manifest = manifests.read(session_.get_modelmeta().custom_metadata_map, str(path))
    if manifest is not None:
        spec = ModelSpec.from_manifest(manifest, str(path))
        _check_graph(session_, spec, path)
        return spec
    inputs, outputs = session_.get_inputs(), session_.get_outputs()
    if not inputs:
        raise ModelFileError(f"{path} was not exported by evovit and has no input. Export one with: evovit export CKPT")
    shape, kind = inputs[0].shape, inputs[0].type
    float_image = kind == "tensor(float)" and len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
    byte_image = kind == "tensor(uint8)" and len(shape) == 4 and shape[3] == 3 and shape[1] == shape[2]
    if len(inputs) != 1 or not (float_image or byte_image) or not isinstance(shape[2], int):
        raise ModelFileError(
            f"{path} was not exported by evovit, and its input {inputs[0].name} {kind} {shape} is not one image batch "
            f"([B, 3, S, S] float32 or [B, S, S, 3] uint8). Export the checkpoint with: evovit export CKPT"
        )
    candidates = {o.name: o for o in outputs if o.type in FLOATS and len(o.shape) == 2 and isinstance(o.shape[1], int)}
    if not candidates:
        found = ", ".join(f"{o.name} {o.type} {o.shape}" for o in outputs)
        raise ModelFileError(
            f"{path} was not exported by evovit, and none of its outputs ({found}) is floating point and [B, classes]."
        )
    scores = scores_output(candidates)
    rows = candidates[scores or next(iter(candidates))].shape[0]
    return ModelSpec(
        name=name_of(path),
        image_size=shape[2],
        input="float32" if float_image else "uint8",
        num_classes=0 if scores is None else candidates[scores].shape[1],
        # Only what has a row per image can be split and put together again.
        outputs=tuple(o.name for o in outputs if o.shape and o.shape[0] == rows),
        batch=shape[0] if isinstance(shape[0], int) else None,
        scores=scores,
    )
