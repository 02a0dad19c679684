"""The checks of one model on one backend; each gives a few words, or raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.cuda.device import CudaDevice
from ..engines.registry import Backend, find
from ..errors import EvoVitError, ParityError
from ..export.parity import compare
from ..export.proof import verify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..checkpoint import Checkpoint
    from ..engines.base import Engine
    from .jobs import CheckJob

__all__ = ["CHECKS", "NotHere", "OpenModel", "trial"]

Outputs = dict[str, Any]
BATCHES = (1, 3, 8)  # of what is opened; 3 is filled up or split where sizes are static
CALLERS, CALLS = 4, 8
OPENED_AGAIN = 3


class NotHere(EvoVitError):
    """A check that has no meaning for a backend or a device."""


@dataclass(frozen=True)
class OpenModel:
    """An open model, and what it is held against.

    Attributes:
        row: Its backend.
        engine: It.
        reference: The FP32 module on the same device.
        images: [8, ...] as the engine takes them, seeded.
        again: Opens the same once more, with options of ``Engine.open``; None where there is no file.
        tolerance: Of the precision, from the recipe.
        device: ``cuda`` or ``cpu``.
    """

    row: Backend
    engine: Engine
    reference: Engine
    images: NDArray[Any]
    again: Callable[..., Engine] | None
    tolerance: Any
    device: str

    def same(self, expected: Outputs, got: Outputs, where: str) -> str:
        """Say how alike two answers to the same images are.

        Raises:
            ParityError: They differ by more than rounding.
        """
        if all(np.array_equal(expected[name], got[name]) for name in expected):
            return "bit for bit"
        # Another patch at a near-tie changes the logits by more than rounding: the index below counts those, the error the rest.
        stages = [name for name in expected if name.startswith("kept_")]
        alike = [
            image
            for image in range(len(expected["logits"]))
            if not any(len(np.setxor1d(expected[name][image], got[name][image])) for name in stages)
        ]
        kept = (
            compare({s: expected[s] for s in stages}, {s: got[s] for s in stages}, self.tolerance) if stages else None
        )
        if kept is not None and not kept.passed:
            raise ParityError(f"{where}: {kept.failure}")
        said = (
            ""
            if len(alike) == len(expected["logits"])
            else f", other patches in {len(expected['logits']) - len(alike)}"
        )
        if not alike:
            return f"no image keeps the same patches{said}"
        logits = compare({"logits": expected["logits"][alike]}, {"logits": got["logits"][alike]}, self.tolerance)
        if not logits.passed:
            raise ParityError(f"{where}: {logits.failure}")
        return f"within {logits.error or 0:.1e}{said}"


@contextmanager
def trial(job: CheckJob, folder: Path) -> Iterator[OpenModel]:
    """Make what a job is about and open it.

    Args:
        job: What.
        folder: For files.

    Raises:
        EvoVitError: It cannot be made or opened.
    """
    from ..checkpoint import random_checkpoint
    from ..engines import Engine, TorchEngine
    from ..models.options import ModelOptions
    from ..recipes import load_recipe

    checkpoint = random_checkpoint(load_recipe(job.model))
    row = find(job.backend)
    assert row is not None
    outputs = ("logits", "kept")
    plain = ModelOptions("fp32", "float32", "topk", outputs, fold=False, trim=False)
    path = _file(row, checkpoint, job, folder, outputs)

    def again(**options: Any) -> Engine:
        assert path is not None
        return Engine.open(path, backend=job.backend, provider=job.device, **options)

    def module() -> TorchEngine:
        options = ModelOptions(job.precision, outputs=outputs)  # type: ignore[arg-type]
        return TorchEngine.from_checkpoint(
            checkpoint, options, provider=job.device, compiled=row.runs_as == "torch.compile"
        )

    with (
        TorchEngine.from_checkpoint(checkpoint, plain, provider=job.device) as reference,
        module() if path is None else again() as engine,
    ):
        rng = np.random.default_rng(0)
        images = rng.standard_normal((max(BATCHES), *engine.spec.image_shape), dtype=np.float32)
        tolerance = checkpoint.recipe.tolerances[job.precision]
        yield OpenModel(row, engine, reference, images, None if path is None else again, tolerance, job.device)


def _file(row: Backend, checkpoint: Checkpoint, job: CheckJob, folder: Path, outputs: tuple[str, ...]) -> Path | None:
    """The file that a backend runs; None where it runs the module."""
    from ..building.build import build_engine
    from ..engines import TorchEngine
    from ..engines.trt.options import BuildOptions
    from ..export import ExportOptions, export_onnx
    from ..models.options import ModelOptions

    options = ModelOptions(job.precision, outputs=outputs)  # type: ignore[arg-type]
    if row.kind == "onnx" or row.built:
        onnx = export_onnx(checkpoint, folder / "model.onnx", ExportOptions(options, prove=False)).path
        if row.kind == "onnx":
            return onnx
        build = BuildOptions(target=row.name, max_batch=max(BATCHES))
        return build_engine(onnx, folder / "model.engine", build, prove=False).path
    if row.make is not None:
        path = folder / f"model{row.suffixes[0]}"
        with TorchEngine.from_checkpoint(checkpoint, options, provider=job.device) as module:
            row.make(module, path, BATCHES)
        return path
    return None


def _parity(it: OpenModel) -> str:
    """The outputs and kept patches of FP32, on photographs and hard images."""
    report = verify(it.reference, it.engine)
    if not report.passed:
        raise ParityError(str(report.failure))
    kept = f", kept sets {min(report.jaccard.values()):.1%} alike" if report.jaccard else ""
    return f"{report.images} images, logits within {report.error or 0:.1e}{kept}"


def _batches(it: OpenModel) -> str:
    """An image gets the same answer in any batch."""
    whole = it.engine(it.images)
    said = []
    for size in BATCHES[:-1]:
        parts = [it.engine(it.images[start : start + size]) for start in range(0, len(it.images), size)]
        got = {name: np.concatenate([part[name] for part in parts]) for name in whole}
        said.append(f"{size}: {it.same(whole, got, f'batch {size}')}")
    return "batch " + ", ".join(said)


def _threads(it: OpenModel) -> str:
    """Callers at once get their own answers."""
    alone = [it.engine(it.images[n : n + 1]) for n in range(CALLERS)]

    def call(number: int) -> str:
        said = [
            it.same(alone[number], it.engine(it.images[number : number + 1]), f"caller {number}") for _ in range(CALLS)
        ]
        return next((text for text in said if text != "bit for bit"), said[0])

    with ThreadPoolExecutor(CALLERS) as pool:
        said = list(pool.map(call, range(CALLERS)))
    return f"{CALLERS} callers, {CALLS} calls each: " + next((t for t in said if t != "bit for bit"), "bit for bit")


def _streams(it: OpenModel) -> str:
    """Tensors on the GPU go in and come out, on the caller's stream."""
    if it.device != "cuda":
        raise NotHere("no GPU")
    import torch

    expected = it.engine(it.images)
    device, images = CudaDevice(), torch.from_numpy(it.images)
    stream = device.stream()
    with device.on(stream):
        given = device.empty(tuple(images.shape), images.dtype)
        given.copy_(images, non_blocking=True)
        got = it.engine(given)
        given.zero_()  # the caller's own again
        on = {str(value.device) for value in got.values()}
        found = {name: value.to("cpu", non_blocking=True) for name, value in got.items()}
    device.wait(stream)
    if any(not name.startswith("cuda") for name in on):
        raise EvoVitError(f"answers to tensors on the GPU came back on {', '.join(sorted(on))}")
    return it.same(expected, {name: value.numpy() for name, value in found.items()}, "on a stream")


def _graphs(it: OpenModel) -> str:
    """With CUDA graphs or without, the answers are the same, at each batch size and when it comes again."""
    if it.again is None or "cuda_graphs" not in it.row.accepts:
        raise NotHere("nothing to choose: this backend has no option for them")
    if it.device != "cuda":
        raise NotHere("no GPU")
    if not it.engine.cuda_graphs:
        raise NotHere("this model cannot be recorded")
    answers: list[dict[int, Outputs]] = []
    for graphs in (True, False):
        with it.again(cuda_graphs=graphs) as engine:
            answers.append({size: engine(it.images[:size]) for size in (*BATCHES, *BATCHES)})
    said = [it.same(answers[1][size], answers[0][size], f"with CUDA graphs, batch {size}") for size in BATCHES]
    return next((text for text in said if text != "bit for bit"), said[0])


def _reload(it: OpenModel) -> str:
    """Opened and closed again, it answers the same, and memory comes back."""
    if it.again is None:
        raise NotHere("a module, not a file")
    expected, free = it.engine(it.images), []
    said = "bit for bit"
    for _ in range(OPENED_AGAIN):
        with it.again() as engine:
            found = it.same(expected, engine(it.images), "opened again")
        said = found if found != "bit for bit" else said
        free.append(_free_memory(it.device))
    lost = "" if free[0] is None else f", {max(0, free[0] - (free[-1] or 0)) >> 20} MiB of the GPU not given back"
    return f"{OPENED_AGAIN} times: {said}{lost}"


def _free_memory(device: str) -> int | None:
    """Bytes free on the GPU, as the driver counts."""
    if device != "cuda":
        return None
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


CHECKS: dict[str, Callable[[OpenModel], str]] = {
    "parity": _parity,
    "batches": _batches,
    "threads": _threads,
    "streams": _streams,
    "CUDA graphs": _graphs,
    "reload": _reload,
}
