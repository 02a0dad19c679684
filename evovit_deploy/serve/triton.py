"""A model repository for Triton Inference Server: the model under a version, its configuration, labels.

The configuration is written through Triton's own schema (``tritonclient``), and every name, type and shape in it is what the
model gave when it ran, or what the plan's manifest says: Triton itself loads a model whose configuration has wrong output
shapes.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError, ModelFileError, OutputError, translate
from ..files import write_bytes
from .settings import NAME
from .tensors import DATATYPES, TensorInfo

__all__ = ["TritonModel", "TritonOptions", "model_config", "package_triton", "read_model"]

PLANS = (".engine", ".plan", ".trt")
CI = Path("configs") / "ci_cpu.pbtxt"  # chosen with `tritonserver --model-config-name=ci_cpu`
LABELS = "labels.txt"


@dataclass(frozen=True)
class TritonOptions:
    """How Triton should run the model.

    Attributes:
        name: Model name; None is the file's stem.
        version: Version folder.
        max_batch: Largest batch; None is what the model takes at most, or 32. A static batch leaves no choice.
        max_delay_us: How long a request may wait for a fuller batch, microseconds.
        max_queue: Requests that may wait; beyond that Triton refuses.
        timeout_ms: Milliseconds that a request may wait.
        instances: Copies of the model on each GPU.
        cpu: Run on the CPU; ONNX only.
    """

    name: str | None = None
    version: int = 1
    max_batch: int | None = None
    max_delay_us: int = 0
    max_queue: int = 256
    timeout_ms: int = 1000
    instances: int = 1
    cpu: bool = False

    def __post_init__(self) -> None:
        for name in ("version", "max_queue", "timeout_ms", "instances"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number from 1.")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} is not a model name; use letters, digits, '_', '-' and '.'.")
        if self.max_delay_us < 0:
            raise InputError(f"max_delay_us is {self.max_delay_us}; give 0 or more.")
        if self.max_batch is not None and self.max_batch < 1:
            raise InputError(f"max_batch is {self.max_batch}; give a whole number from 1.")


@dataclass(frozen=True)
class TritonModel:
    """What Triton has to know about a model.

    Attributes:
        path: The file.
        backend: ``onnxruntime`` or ``tensorrt``.
        input, outputs: Names, types, and shapes without the batch.
        num_classes: Classes in the first output.
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


def read_model(path: Path) -> TritonModel:
    """Run an ONNX file once on the CPU, or read the manifest of a plan.

    Raises:
        ModelFileError: Not a model, ONNX with weights in other files, or a plan without a manifest.
        EngineError: A plan that Triton has no backend for, or a model that does not run.
    """
    return _read_plan(path) if path.suffix in PLANS else _read_onnx(path)


def _read_onnx(path: Path) -> TritonModel:
    from ..engines import OrtEngine

    if not path.is_file():
        raise ModelFileError(f"{path}: no such file. Make one with: evovit export CKPT -o {path.with_suffix('.onnx')}")
    _refuse_external_data(path)
    with OrtEngine(path, provider="cpu") as engine:
        spec = engine.spec
        results = engine(np.zeros((spec.batch or 1, *spec.image_shape), spec.input))
        name = str(engine.session.get_inputs()[0].name)
    outputs = tuple(TensorInfo(key, DATATYPES[value.dtype.name], value.shape[1:]) for key, value in results.items())
    image = TensorInfo(name, DATATYPES[spec.input], spec.image_shape)
    return TritonModel(path, "onnxruntime", image, outputs, spec.num_classes, spec.batch, None, spec.batch)


def _refuse_external_data(path: Path) -> None:
    import onnx
    from onnx.external_data_helper import uses_external_data

    with translate(ModelFileError, f"{path} cannot be read as ONNX"):
        model = onnx.load(str(path), load_external_data=False)
    if any(uses_external_data(tensor) for tensor in model.graph.initializer):
        raise ModelFileError(f"{path} keeps weights in other files; save it as one file first.")


def _read_plan(path: Path) -> TritonModel:
    from ..engines.engine_manifest import check_file, read_manifest, rebuild_command

    document = read_manifest(path)
    header = check_file(path, document)
    if header.flavour != "tensorrt":
        raise EngineError(
            f"{path} is a plan of {header.flavour}, and Triton has no backend for it. Package the ONNX file, or build with: "
            f"{rebuild_command(path, document, 'tensorrt')}"
        )
    if document is None:
        raise ModelFileError(
            f"{path} has no manifest beside it, so its inputs and outputs are not known; build it again."
        )
    io, batch = document["io"], document["batch"]
    image = io["input"]
    outputs = tuple(
        # Class scores are float32 and kept positions int64, whatever the precision inside.
        TensorInfo(name, "INT64" if name.startswith("kept_") else "FP32", tuple(shape[1:]))
        for name, shape in io["outputs"].items()
    )
    static = batch["max"] if batch["min"] == batch["max"] else None
    info = TensorInfo(image["name"], DATATYPES[image["dtype"]], tuple(image["shape"][1:]))
    return TritonModel(path, "tensorrt", info, outputs, document["num_classes"], static, batch["opt"], batch["max"])


def model_config(model: TritonModel, options: TritonOptions, *, labels: bool = False, cpu: bool = False) -> Any:
    """The ``ModelConfig`` message.

    Args:
        model: From :func:`read_model`.
        options: How to run it.
        labels: A file of class names is beside the configuration.
        cpu: For the CPU, whatever the options say.

    Raises:
        InputError: A batch that the model does not take, or a plan for the CPU.
    """
    from google.protobuf.json_format import ParseDict
    from tritonclient.grpc import model_config_pb2 as pb

    cpu = cpu or options.cpu
    if cpu and model.backend == "tensorrt":
        raise InputError(f"{model.path} is a TensorRT plan and runs on a GPU only.")
    batch = _max_batch(model, options)
    lead = [model.batch] if model.batch is not None else []

    def tensor(info: TensorInfo, **other: Any) -> dict[str, Any]:
        return {"name": info.name, "data_type": f"TYPE_{info.datatype}", "dims": [*lead, *info.shape], **other}

    classes = {"logits", "probabilities", model.outputs[0].name}
    config: dict[str, Any] = {
        "name": options.name or model.path.stem,
        "backend": model.backend,
        "max_batch_size": batch,
        "input": [tensor(model.input)],
        "output": [
            tensor(info, **({"label_filename": LABELS} if labels and info.name in classes else {}))
            for info in model.outputs
        ],
        "instance_group": [
            {
                "count": 1 if cpu else options.instances,
                "kind": "KIND_CPU" if cpu else "KIND_GPU",
                **({"profile": ["0"]} if model.backend == "tensorrt" else {}),
            }
        ],
        "model_warmup": [
            {
                "name": f"batch_{size}",
                "batch_size": size if batch else 0,
                "inputs": {
                    model.input.name: {
                        "data_type": f"TYPE_{model.input.datatype}",
                        "dims": [*lead, *model.input.shape],
                        "zero_data": True,
                    }
                },
            }
            for size in dict.fromkeys((1, batch))
            if size
        ],
    }
    if batch:
        config["dynamic_batching"] = {
            **({"preferred_batch_size": [min(model.preferred, batch)]} if model.preferred else {}),
            "max_queue_delay_microseconds": options.max_delay_us,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": options.timeout_ms * 1000,
                "allow_timeout_override": True,
                "max_queue_size": options.max_queue,
            },
        }
    if model.backend == "tensorrt":
        config["optimization"] = {"cuda": {"graphs": True, "output_copy_stream": True}}
    return ParseDict(config, pb.ModelConfig())


def _max_batch(model: TritonModel, options: TritonOptions) -> int:
    """Triton's ``max_batch_size``; 0 for a static batch, which is then part of the shapes."""
    if model.batch is not None:
        if options.max_batch not in (None, model.batch):
            raise InputError(
                f"{model.path} has a static batch of {model.batch}; max_batch {options.max_batch} is impossible."
            )
        return 0
    if options.max_batch is not None and model.max_batch is not None and options.max_batch > model.max_batch:
        raise InputError(f"{model.path} takes batches up to {model.max_batch}, not {options.max_batch}.")
    return options.max_batch or model.max_batch or 32


def package_triton(
    path: Path, repository: Path, options: TritonOptions | None = None, *, labels: list[str] | None = None
) -> Path:
    """Add a model, or a version of it, to a Triton model repository; made whole or not at all.

    Args:
        path: ONNX file, or a TensorRT plan with its manifest.
        repository: Folder of the repository; made if it is missing.
        options: How Triton should run it.
        labels: Class names, in class order.

    Returns:
        The model's folder.

    Raises:
        OutputError: The version is there already, an older version has other inputs or outputs, or it cannot be written.
        InputError, ModelFileError, EngineError: See :func:`read_model` and :func:`model_config`.
    """
    from google.protobuf import text_format

    options = options or TritonOptions()
    model = read_model(path)
    if labels is not None and len(labels) != model.num_classes:
        raise InputError(f"{len(labels)} labels for a model of {model.num_classes} classes.")
    config = model_config(model, options, labels=labels is not None)
    folder = repository / config.name
    _check_place(folder, config, options.version)
    texts = {"config.pbtxt": text_format.MessageToString(config)}
    if model.backend == "onnxruntime":
        texts[str(CI)] = text_format.MessageToString(model_config(model, options, labels=labels is not None, cpu=True))
    if labels is not None:
        texts[LABELS] = "\n".join(labels) + "\n"
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".evovit-", dir=repository) as scratch:
            version = Path(scratch) / "model" / str(options.version)
            version.mkdir(parents=True)
            shutil.copyfile(path, version / ("model.onnx" if model.backend == "onnxruntime" else "model.plan"))
            target = folder if folder.exists() else version.parent
            (target / CI).parent.mkdir(exist_ok=True)
            for name, text in texts.items():
                write_bytes(target / name, text.encode())
            version.rename(folder / version.name) if folder.exists() else version.parent.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}.") from error
    return folder


def _check_place(folder: Path, config: Any, version: int) -> None:
    """Refuse a version that exists, and one that clients of the older ones could not use."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    if (folder / str(version)).exists():
        raise OutputError(f"{folder / str(version)} exists. Give another --model-version, or delete it.")
    if not folder.exists():
        return
    try:
        old = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise OutputError(f"{folder} exists and has no readable config.pbtxt. Give another --name.") from error

    def signature(message: Any) -> list[tuple[Any, ...]]:
        tensors = (*message.input, *message.output)
        return [(message.backend, message.max_batch_size), *((t.name, t.data_type, tuple(t.dims)) for t in tensors)]

    if signature(old) != signature(config):
        raise OutputError(
            f"{folder} holds a model with another backend, batch, inputs or outputs. Give another --name."
        )
