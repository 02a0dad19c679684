"""ONNX Runtime's sessions: on a CPU or through CUDA, never one in place of the other."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from ...errors import EngineError, ModelFileError
from ...manifest.onnx_file import load_onnx
from ...suggest import did_you_mean

__all__ = ["PROVIDERS", "GraphsRefused", "check_provider", "cuda_problem", "is_half", "session"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class GraphsRefused(EngineError):
    """ONNX Runtime did not open a model because it cannot be recorded as a CUDA graph."""


def cuda_problem() -> str | None:
    """Say why ONNX Runtime cannot use a GPU here, or None if it can."""
    import onnxruntime as ort

    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this onnxruntime has no CUDA provider (pip install onnxruntime-gpu)"
    if _driver_is_there():  # else torch, which takes seconds to import, has nothing to ask
        import torch

        if torch.cuda.is_available():
            return None
    return "no usable NVIDIA GPU or driver was found"


def _driver_is_there() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def check_provider(provider: str) -> None:
    """Raise EngineError unless a provider is one and works here."""
    if provider not in PROVIDERS:
        hint = did_you_mean(provider, ("auto", *PROVIDERS))
        raise EngineError(f"provider {provider!r} is unknown; valid: auto, {', '.join(PROVIDERS)}.{hint}")
    if provider == "cuda":
        problem = cuda_problem()
        if problem:
            raise EngineError(
                f"ONNX Runtime cannot run on a GPU: {problem}. Use --provider cpu, or see `evovit doctor`."
            )


def session(
    model: str | bytes,
    provider: str,
    threads: int | None,
    *,
    optimise: bool = True,
    config: dict[str, str] | None = None,
) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on exactly the provider asked for.

    Args:
        model: Path, or what is in the file.
        provider: ``cpu`` or ``cuda``.
        threads: CPU threads within an operator.
        optimise: Let ONNX Runtime rewrite the graph.
        config: Options of the provider.

    Raises:
        GraphsRefused: The options ask for CUDA graphs, and the model cannot be recorded.
        EngineError: The provider does not work here, or ONNX Runtime dropped it.
        ModelFileError: ONNX Runtime cannot load the model.
    """
    import onnxruntime as ort

    check_provider(provider)
    if provider == "cuda":
        ort.preload_dlls()  # CUDA and cuDNN from the wheels that torch brought
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Threads take blocks as they come instead of equal shares, so that the slower core holds up an operator less; 4 is what
    # ONNX Runtime's documentation of thread management recommends.
    options.add_session_config_entry("session.dynamic_block_base", "4")
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    name = model if isinstance(model, str) else "the model"
    try:
        result = ort.InferenceSession(model, options, providers=[(PROVIDERS[provider], config or {})])
    except Exception as error:  # onnxruntime raises its own classes, which share no base
        if provider == "cpu" and is_half(model):
            raise EngineError(
                "ONNX Runtime's CPU provider cannot run BF16. Build a TensorRT engine, use --provider cuda on a GPU machine, "
                "or export with --precision fp16 or fp32."
            ) from error
        if config and _refuses_graphs(error):
            raise GraphsRefused(
                f"{name} cannot be recorded as a CUDA graph: {error}. Leave cuda_graphs out."
            ) from error
        raise ModelFileError(f"ONNX Runtime cannot load {name}: {error}") from error
    if PROVIDERS[provider] not in result.get_providers():
        raise EngineError(
            f"ONNX Runtime dropped {PROVIDERS[provider]} and would run on {result.get_providers()[0]}; refused. "
            f"Its CUDA libraries do not match this machine: see `evovit doctor`, or use --provider cpu."
        )
    return result


def is_half(model: str | bytes | Path, fp16: bool = False) -> bool:
    """Return whether a model has BF16 constants, or those or FP16 ones; False for what is not ONNX at all."""
    import onnx

    from ..emulate import has_bf16, has_fp16

    try:
        loaded = onnx.load_model_from_string(model) if isinstance(model, bytes) else load_onnx(Path(model))
        return has_bf16(loaded) or (fp16 and has_fp16(loaded))
    except Exception:  # not ONNX: the caller has a better message
        return False


def _refuses_graphs(error: Exception) -> bool:
    text = str(error).lower()
    return any(f"cannot use the {what} feature" in text for what in ("graph capture", "cuda graph"))
