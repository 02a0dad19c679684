"""ONNX Runtime, on a CPU or through CUDA; never one in place of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import manifest as manifests
from ..classes.scores import scores_output
from ..errors import EngineError, ModelFileError, translate
from ..manifest.onnx_file import load_onnx
from ..manifest.spec import ModelSpec
from ..storage.names import name_of
from ..suggest import did_you_mean
from .base import Engine
from .forking import end_without_destructors, keep_for_ever, no_cuda_here
from .registry import Backend, Probes, register

__all__ = ["OrtEngine", "cuda_problem", "session"]

FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def cuda_problem() -> str | None:
    """Say why ONNX Runtime cannot use a GPU here, or None if it can."""
    import onnxruntime as ort

    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this onnxruntime has no CUDA provider (pip install onnxruntime-gpu)"
    import torch

    return None if torch.cuda.is_available() else "no usable NVIDIA GPU or driver was found"


def session(model: str | bytes, provider: str, threads: int | None, *, optimise: bool = True) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on exactly the provider asked for.

    Raises:
        EngineError: The provider does not work here, or ONNX Runtime dropped it.
        ModelFileError: ONNX Runtime cannot load the model.
    """
    import onnxruntime as ort

    if provider not in PROVIDERS:
        hint = did_you_mean(provider, ("auto", *PROVIDERS))
        raise EngineError(f"provider {provider!r} is unknown; valid: auto, {', '.join(PROVIDERS)}.{hint}")
    if provider == "cuda":
        problem = cuda_problem()
        if problem:
            raise EngineError(
                f"ONNX Runtime cannot run on a GPU: {problem}. Use --provider cpu, or see `evovit doctor`."
            )
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
    what = f"ONNX Runtime cannot load {model if isinstance(model, str) else 'the model'}"
    try:
        result = ort.InferenceSession(model, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime raises its own classes, which share no base
        if provider == "cpu" and _is_half(model):
            raise EngineError(
                "ONNX Runtime's CPU provider cannot run BF16. Build a TensorRT engine, use --provider cuda on a GPU machine, "
                "or export with --precision fp16 or fp32."
            ) from error
        raise ModelFileError(f"{what}: {error}") from error
    if PROVIDERS[provider] not in result.get_providers():
        raise EngineError(
            f"ONNX Runtime dropped {PROVIDERS[provider]} and would run on {result.get_providers()[0]}; refused. "
            f"Its CUDA libraries do not match this machine: see `evovit doctor`, or use --provider cpu."
        )
    return result


class OrtEngine(Engine):
    """An ONNX file in ONNX Runtime. ``InferenceSession.run`` is safe from several threads.

    Args:
        path: ONNX file, exported by evovit or with one image input.
        provider: ``cpu``, ``cuda``, or ``auto``: CUDA where it works, else the CPU.
        threads: CPU threads within an operator.
        emulate: Run a BF16 graph on a CPU by rounding after every operation (:mod:`evovit_deploy.engines.emulate`); right
            for comparing outputs, meaningless for timing. Without it a BF16 graph on a CPU is an EngineError.
        strict: With ``emulate``, FP16 too, much of which ONNX Runtime's CPU provider computes in FP32, where nothing overflows.
    """

    backend = "onnxruntime"

    def __init__(
        self,
        path: str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        emulate: bool = False,
        strict: bool = False,
    ) -> None:
        if provider == "auto":
            provider = "cpu" if cuda_problem() else "cuda"
        self._path, self._threads = Path(path), threads
        self._emulate = provider == "cpu" and emulate and _is_half(path, strict)
        self._file = _identity(self._path)
        self.session = self._session(provider)
        self.device = "cpu" if provider == "cpu" else "cuda:0"
        self.spec = _spec(self.session, Path(path))
        self._input = self.session.get_inputs()[0].name

    def _session(self, provider: str) -> Any:
        if self._emulate:
            return session(_emulated(self._path), provider, self._threads, optimise=False)
        return session(str(self._path), provider, self._threads)

    def forked(self) -> None:
        """See :meth:`Engine.forked`. The threads of the session stayed with the parent, and its destructor waits for them."""
        super().forked()
        keep_for_ever(getattr(self, "session", None))
        end_without_destructors()

    def revive(self) -> None:
        """Open the file again, with threads of this process.

        Raises:
            EngineError: The engine is on a GPU, or the file is no longer the same.
        """
        if self.session is None:
            return
        if self.device != "cpu":
            raise no_cuda_here(self.spec.name, self.device)
        if _identity(self._path) != self._file:
            raise EngineError(
                f"{self._path} was replaced or removed since it was opened, so it cannot be opened again in this forked process. "
                "Open the engine after the fork."
            )
        self.session = self._session("cpu")

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`."""
        if self.session is None:
            raise EngineError(f"{self.spec.name} is closed.")
        with translate(EngineError, f"ONNX Runtime failed on {self.spec.name} with {len(images)} images"):
            values = self.session.run(list(self.spec.outputs), {self._input: np.ascontiguousarray(images)})
        return dict(zip(self.spec.outputs, values))

    def close(self) -> None:
        """Free the session."""
        super().close()
        self.session = None


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _is_half(model: str | bytes | Path, fp16: bool = False) -> bool:
    """Whether a model has BF16 constants, or those or FP16 ones; False for what is not ONNX at all."""
    import onnx

    from .emulate import has_bf16, has_fp16

    try:
        loaded = onnx.load_model_from_string(model) if isinstance(model, bytes) else load_onnx(Path(model))
        return has_bf16(loaded) or (fp16 and has_fp16(loaded))
    except Exception:  # not ONNX: the caller has a better message
        return False


def _emulated(path: str | Path) -> bytes:
    from .emulate import emulate_bf16, emulate_fp16, has_bf16

    model = load_onnx(Path(path), external=True)
    return bytes((emulate_bf16 if has_bf16(model) else emulate_fp16)(model).SerializeToString())


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


def _spec(session_: Any, path: Path) -> ModelSpec:
    """The spec from the manifest, or from the input and output shapes for a file of another tool."""
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


def _open(path: Path, *, provider: str, threads: int | None, emulate: bool = False, strict: bool = False) -> OrtEngine:
    return OrtEngine(path, provider=provider, threads=threads, emulate=emulate, strict=strict)


def _usable(probes: Probes) -> tuple[str, ...]:
    found = probes["onnxruntime"]
    cpu = PROVIDERS["cpu"] in found.get("providers", ())
    return (*(("cpu",) if cpu else ()), *(("cuda",) if found.get("cuda_problem", "not asked") is None else ()))


register(
    Backend(
        name="onnxruntime",
        description="ONNX Runtime, on the CPU or with CUDA",
        kind="onnx",
        files="ONNX files",
        suffixes=(".onnx",),
        open=_open,
        module="onnxruntime",
        accepts=("emulate", "strict"),
        any_suffix=True,
        platform="onnxruntime_onnx",
        missing="Make one with: evovit export CKPT -o {stem}.onnx",
        usable=_usable,
        elsewhere="this onnxruntime has no provider for the CPU or CUDA; reinstall it",
    )
)
