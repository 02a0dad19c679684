"""A model repository for Triton Inference Server: the model under a version, its configuration, labels.

The configuration is written through Triton's own schema (``tritonclient``), and every name, type and shape in it is what the
model gave when it ran, or what the plan's manifest says: Triton itself loads a model whose configuration has wrong output
shapes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..classes.scores import no_scores
from ..errors import InputError, OutputError
from ..serve.limits import check_limits, limit, same
from ..serve.tensors import TensorInfo
from ..storage.files import write_bytes
from ..storage.names import check_name, name_of
from ..storage.ownership import Ours, check_replaceable, is_signed, signed
from .triton_model import TritonModel, read_model

__all__ = ["TritonModel", "TritonOptions", "model_config", "package_triton", "read_model"]

CI = Path("configs") / "ci_cpu.pbtxt"  # chosen with `tritonserver --model-config-name=ci_cpu`
LABELS = "labels.txt"


@dataclass(frozen=True)
class TritonOptions:
    """How Triton should run the model.

    Attributes:
        name: Model name; None is made of the file's, see :func:`~evovit_deploy.storage.names.name_of`.
        version: Version folder.
        max_batch: Largest batch; None is what the model takes at most, or 32. A static batch leaves no choice.
        max_delay_us: How long a request may wait for a fuller batch, microseconds.
        max_queue: Requests that may wait; beyond that Triton refuses.
        timeout_ms: Milliseconds that a request may wait.
        instances: Copies of the model on each GPU.
        cpu: Run on the CPU; ONNX only.
    """

    name: str | None = None
    version: int = limit(1, "Version folder.", least=1)
    max_batch: int | None = same("max_batch")
    max_delay_us: int = limit(0, "How long a request may wait for a fuller batch.", "US", least=0)
    max_queue: int = same("max_queue")
    timeout_ms: int = limit(1000, "How long a request may wait.", "MS", least=1)
    instances: int = limit(1, "Copies of the model on each GPU.", least=1)
    cpu: bool = False

    def __post_init__(self) -> None:
        check_limits(self)
        if self.name is not None:
            check_name(self.name)
        if self.max_delay_us >= 1000 * self.timeout_ms:
            raise InputError(
                f"a request may wait {self.timeout_ms} ms and would wait {self.max_delay_us / 1000:g} ms for a fuller batch; "
                "give a longer timeout or a shorter delay."
            )


def model_config(model: TritonModel, options: TritonOptions, *, labels: bool = False, cpu: bool = False) -> Any:
    """Return the ``ModelConfig`` message.

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
        raise InputError(f"{model.path} is a TensorRT engine and runs on a GPU only.")
    batch = _max_batch(model, options)
    lead = [model.batch] if model.batch is not None else []

    def tensor(info: TensorInfo, **other: Any) -> dict[str, Any]:
        return {"name": info.name, "data_type": f"TYPE_{info.datatype}", "dims": [*lead, *info.shape], **other}

    classes = {"logits", "probabilities", model.scores}
    config: dict[str, Any] = {
        "name": options.name or name_of(model.path),
        "backend": model.backend,
        "version_policy": {"all": {}},  # Triton's default serves the newest only, and drops the older in mid-air
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
    path: Path,
    repository: Path,
    options: TritonOptions | None = None,
    *,
    labels: list[str] | None = None,
    force: bool = False,
) -> Path:
    """Add a model, or a version of it, to a Triton model repository; made whole or not at all.

    Args:
        path: ONNX file, or a TensorRT engine with its manifest.
        repository: Folder of the repository; made if it is missing.
        options: How Triton should run it.
        labels: Class names, in class order.
        force: Replace the version if it is there, and a configuration that was edited.

    Returns:
        The model's folder.

    Raises:
        OutputError: The version is there already, an older version has other inputs or outputs, its configuration was
            edited, or it cannot be written.
        InputError, ModelFileError, EngineError: See :func:`read_model` and :func:`model_config`.
    """

    options = options or TritonOptions()
    model = read_model(path)
    if labels is not None and model.scores is None:
        raise no_scores(str(path), (info.name for info in model.outputs))
    if labels is not None and len(labels) != model.num_classes:
        raise InputError(f"{len(labels)} labels for a model of {model.num_classes} classes.")
    config = model_config(model, options, labels=labels is not None)
    folder = repository / config.name
    old = _check_place(folder, config, options.version, force=force)
    texts = {"config.pbtxt": _signed(config)}
    if model.backend == "onnxruntime":
        texts[str(CI)] = _signed(model_config(model, options, labels=labels is not None, cpu=True))
    if labels is not None:
        texts[LABELS] = "\n".join(labels) + "\n"
    if old is not None:
        known: dict[str, Ours] = {LABELS: lambda path: any(tensor.label_filename for tensor in old.output)}
        there = {folder / name: known.get(name, is_signed) for name in texts if (folder / name).exists()}
        check_replaceable(there, force=force)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".evovit-", dir=_workplace(repository, folder)) as scratch:
            version = Path(scratch) / "model" / str(options.version)
            version.mkdir(parents=True)
            shutil.copyfile(path, version / ("model.onnx" if model.backend == "onnxruntime" else "model.plan"))
            target = folder if folder.exists() else version.parent
            (target / CI).parent.mkdir(exist_ok=True)
            for name, text in texts.items():
                write_bytes(target / name, text.encode())
            if (folder / version.name).exists():
                (folder / version.name).rename(Path(scratch) / "old")
            version.rename(folder / version.name) if folder.exists() else version.parent.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}.") from error
    return folder


def _workplace(repository: Path, folder: Path) -> Path:
    """Where to build what is then renamed into place.

    Triton takes every folder of a repository for a model and does not start with one that is none, so a folder left by a
    killed process must not lie there. Within a model it ignores folders that are no number.
    """
    if folder.exists():
        return folder
    parent = repository.resolve().parent
    apart = parent.stat().st_dev != repository.stat().st_dev or not os.access(parent, os.W_OK)
    return repository if apart else parent


def _signed(config: Any) -> str:
    from google.protobuf import text_format

    return signed(text_format.MessageToString(config), "package triton")


def _check_place(folder: Path, config: Any, version: int, *, force: bool) -> Any | None:
    """Refuse a version that exists, and one that clients of the older ones could not use; returns the older configuration."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    if (folder / str(version)).exists() and not force:
        raise OutputError(f"{folder / str(version)} exists. Give another --model-version, or use --force.")
    if not folder.exists():
        return None
    try:
        old = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise OutputError(f"{folder} exists and has no readable config.pbtxt. Give another --model-name.") from error

    def signature(message: Any) -> list[tuple[Any, ...]]:
        tensors = (*message.input, *message.output)
        return [(message.backend, message.max_batch_size), *((t.name, t.data_type, tuple(t.dims)) for t in tensors)]

    if signature(old) != signature(config):
        raise OutputError(
            f"{folder} holds a model with a different backend, batch, inputs or outputs. Give another --model-name."
        )
    return old
