"""What the protocol tells about a service and its models: metadata, configuration, statistics. Plain dictionaries."""

from __future__ import annotations

from typing import Any

from ..engines.registry import find
from .metrics import Duration
from .models import ServedModel
from .tensors import TensorInfo

__all__ = ["EXTENSIONS", "model_config", "model_metadata", "model_statistics", "server_metadata"]

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "schedule_policy", "statistics")


def server_metadata() -> dict[str, Any]:
    """Describe the service."""
    from importlib.metadata import version

    return {"name": "evovit", "version": version("evovit-deploy"), "extensions": list(EXTENSIONS)}


def model_metadata(model: ServedModel, versions: list[str]) -> dict[str, Any]:
    """Return the tensors of a model, with the batch as -1."""

    def tensor(info: TensorInfo) -> dict[str, Any]:
        return {"name": info.name, "datatype": info.datatype, "shape": [-1, *info.shape]}

    return {
        "name": model.name,
        "versions": versions,
        "platform": _platform(model),
        "inputs": [tensor(model.input)],
        "outputs": [tensor(info) for info in model.outputs],
    }


def model_config(model: ServedModel) -> dict[str, Any]:
    """Return the configuration in Triton's schema, shapes without the batch."""

    def tensor(info: TensorInfo) -> dict[str, Any]:
        kind = "TYPE_" + info.datatype
        return {"name": info.name, "data_type": kind, "dims": list(info.shape)}

    workers = model.batcher.workers
    kind = "KIND_CPU" if model.engine.device in ("cpu", "none") else "KIND_GPU"
    return {
        "name": model.name,
        "platform": _platform(model),
        "backend": model.engine.backend,
        "max_batch_size": model.batcher.max_batch,
        "input": [tensor(model.input)],
        "output": [tensor(info) for info in model.outputs],
        "instance_group": [{"name": model.name, "kind": kind, "count": workers}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(model.batcher.max_delay_ms * 1000)},
    }


def model_statistics(model: ServedModel) -> dict[str, Any]:
    """Return counts and nanoseconds since the model was loaded."""

    def duration(value: Duration) -> dict[str, int]:
        return {"count": value.count, "ns": round(value.seconds * 1e9)}

    statistics = model.statistics
    none = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": statistics.last,
        "inference_count": statistics.images,
        "execution_count": sum(value.count for value in statistics.batches.values()),
        "inference_stats": {
            "success": duration(statistics.success),
            "fail": duration(statistics.fail),
            "queue": duration(statistics.queue),
            "compute_input": none,
            "compute_infer": duration(statistics.compute),
            "compute_output": none,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": none,
                "compute_infer": duration(value),
                "compute_output": none,
            }
            for size, value in sorted(statistics.batches.items())
        ],
    }


def _platform(model: ServedModel) -> str:
    row = find(model.engine.backend)
    return model.engine.backend if row is None else row.platform or row.name
