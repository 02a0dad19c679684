"""Inductor engines on a GPU that is a stand-in: graphs, streams, threads. One package is real and computes on the CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy import Engine
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import TorchEngine
from evovit_deploy.engines.inductor import compiling
from evovit_deploy.engines.inductor import engine as module
from evovit_deploy.engines.inductor.engine import InductorEngine
from evovit_deploy.engines.inductor.package import manifest_path
from evovit_deploy.errors import EngineError, InputError
from evovit_deploy.models.options import ModelOptions
from tests.bench.made import MICRO
from tests.engines.conduct import closing_during_a_call, refusal_in_a_child
from tests.engines.fake_cuda import FakeGpu
from tests.engines.fake_inductor import Compiler, OnGpu
from tests.engines.test_inductor import change

Open = Callable[..., InductorEngine]


def images_of(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 3, 32, 32)).astype(np.float32)


class Loader:
    """Opens packages on the fake GPU.

    Attributes:
        compiler: That made them.
        loaded: Name and whether one thread at a time was promised, of each.
    """

    def __init__(self) -> None:
        self.gpu, self.compiler = FakeGpu(), Compiler()
        self.loaded: list[tuple[str, bool]] = []

    def install(self, patch: pytest.MonkeyPatch, load: Any = None) -> Loader:
        self.compiler.install(patch)
        self._load = load or self.compiler.load
        patch.setattr(module, "_load", self.load)
        patch.setattr(module, "check_machine", lambda path, document: None)
        patch.setattr(module, "CudaDevice", self.gpu.device)
        return self

    def load(self, path: Path, name: str, device: str, alone: bool) -> Any:
        assert device == "cuda"
        self.loaded.append((name, alone))
        return OnGpu(self.gpu, self._load(path, name, "cpu", False), alone)


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader().install(monkeypatch)


@pytest.fixture
def gpu(loader: Loader) -> FakeGpu:
    return loader.gpu


@pytest.fixture
def checkpoint() -> Iterator[TorchEngine]:
    with TorchEngine.from_checkpoint(
        random_checkpoint(MICRO), ModelOptions(outputs=("logits", "kept")), provider="cpu"
    ) as engine:
        yield engine


@pytest.fixture
def package(loader: Loader, checkpoint: TorchEngine, tmp_path: Path) -> Path:
    """For batches of 1 to 4."""
    compiling.make(checkpoint, tmp_path / "m.pt2", (1, 4))
    change(tmp_path / "m.pt2", "machine", "device", value="cuda")
    return tmp_path / "m.pt2"


@pytest.fixture
def opened(package: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def make(**options: Any) -> InductorEngine:
            engine = Engine.open(package, **options)
            assert isinstance(engine, InductorEngine)
            return stack.enter_context(engine)

        yield make


def check(expected: dict[str, Any], found: dict[str, Any], gpu: FakeGpu | None = None) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        got = found[name] if gpu is None else gpu.value(found[name])
        np.testing.assert_allclose(got, value, atol=1e-5)
        assert got.dtype == value.dtype


@pytest.mark.parametrize("graphs", [None, False])
@pytest.mark.parametrize("sizes", [[], [1, 4]])
def test_any_batch_size_numpy_and_tensors(
    opened: Open, package: Path, checkpoint: TorchEngine, loader: Loader, graphs: bool | None, sizes: list[int]
) -> None:
    change(package, "batch", "sizes", value=sizes)
    engine = opened(cuda_graphs=graphs)
    assert (engine.device, engine.cuda_graphs) == ("cuda:0", graphs is None)
    for n in (1, 3, 4, 2, 9, 1):
        images = images_of(n, n)
        check(checkpoint(images), engine(images))
        check(checkpoint(images), engine(loader.gpu.tensor(images)), loader.gpu)
    assert loader.gpu.graphs == (0 if graphs is False else 2 if sizes else 4)
    assert {alone for _, alone in loader.loaded} == {graphs is None}


def test_the_package_runs_once_for_a_graph_and_then_never(opened: Open, loader: Loader) -> None:
    engine = opened()
    engine(images_of(2))
    runs = len(loader.compiler.ran)
    alone = loader.gpu.graphs
    engine(images_of(2))
    assert loader.gpu.graphs == alone == 1
    assert len(loader.compiler.ran) == runs + 1  # the work that was recorded


def test_without_graphs_tensors_are_read_where_they_are_on_the_callers_stream(
    opened: Open, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, gpu = opened(cuda_graphs=False), loader.gpu
    seen: list[tuple[int, Any]] = []
    run = OnGpu.run

    def watched(model: OnGpu, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        seen.append((inputs[0].data_ptr(), gpu.current))
        return run(model, inputs)

    monkeypatch.setattr(OnGpu, "run", watched)
    images, stream = gpu.tensor(images_of(2)), gpu._stream()
    with gpu.on(stream):
        engine(images)
    assert seen == [(images.data_ptr(), stream)]


@pytest.mark.parametrize("graphs", [True, False])
def test_work_of_the_caller_before_and_after_is_in_order(
    opened: Open, checkpoint: TorchEngine, gpu: FakeGpu, graphs: bool
) -> None:
    engine = opened(cuda_graphs=graphs)
    first, second = images_of(2, 1), images_of(2, 2)
    with gpu.on(gpu._stream()):  # whatever happens on it, happens at the very end
        images = gpu.tensor(first)
        before = engine(images)
        images.copy_(torch.from_numpy(second), non_blocking=True)
        after = engine(images)
        strided = engine(gpu.tensor(np.repeat(second, 2, axis=0))[::2])
        for found, given in ((before, first), (after, second), (strided, second)):
            check(checkpoint(given), found, gpu)


@pytest.mark.parametrize("graphs", [True, False])
def test_threads_get_their_own_answers(opened: Open, checkpoint: TorchEngine, gpu: FakeGpu, graphs: bool) -> None:
    engine = opened(cuda_graphs=graphs)
    jobs = [images_of(1 + seed % 4, seed) for seed in range(24)]
    expected = [checkpoint(images) for images in jobs]

    def call(place: int) -> dict[str, Any]:
        if place % 2:
            return engine(jobs[place])
        with gpu.on(gpu._stream()):
            return {name: gpu.value(value) for name, value in engine(gpu.tensor(jobs[place])).items()}

    with ThreadPoolExecutor(4) as pool:
        for wanted, found in zip(expected, pool.map(call, range(len(jobs)))):
            check(wanted, found)


@pytest.mark.parametrize("graphs", [True, False])
def test_inference_mode_of_one_caller_is_nothing_to_the_next(
    opened: Open, checkpoint: TorchEngine, gpu: FakeGpu, graphs: bool
) -> None:
    engine, images = opened(cuda_graphs=graphs), images_of(2)
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            check(checkpoint(images), engine(images))
            check(checkpoint(images), engine(gpu.tensor(images)), gpu)


def test_wrong_images_and_tensors_elsewhere(opened: Open, checkpoint: TorchEngine, gpu: FakeGpu) -> None:
    engine, images = opened(), images_of(2)
    for wrong in (images.astype(np.float64), images[:, :2], images[0]):
        for given in (wrong, gpu.tensor(wrong)):
            with pytest.raises(InputError):
                engine(given)
    found = engine(torch.from_numpy(images))
    assert {str(value.device) for value in found.values()} == {"cpu"}
    check(checkpoint(images), {name: value.numpy() for name, value in found.items()})


@pytest.mark.parametrize("graphs", [True, False])
def test_closing_waits_for_a_call_and_refuses_the_next(opened: Open, gpu: FakeGpu, graphs: bool) -> None:
    engine = opened(cuda_graphs=graphs)
    with closing_during_a_call(engine):
        pass
    for given in (images_of(1), gpu.tensor(images_of(1))):
        with pytest.raises(EngineError, match="closed"):
            engine(given)


def test_a_recording_that_fails_says_what_to_do_and_the_engine_goes_on(
    opened: Open, checkpoint: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, run = opened(), OnGpu.run

    def refuse(model: OnGpu, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        if model.gpu.current.recording is not None:
            raise RuntimeError("out of memory")
        return run(model, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(OnGpu, "run", refuse)
        with pytest.raises(EngineError, match=r"batches of 2 could not be recorded.*out of memory.*cuda_graphs=False"):
            engine(images_of(2))
    check(checkpoint(images_of(2)), engine(images_of(2)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_refuses_closes_and_leaves_the_parent_alone(opened: Open, checkpoint: TorchEngine) -> None:
    engine, images = opened(), images_of(2)
    engine(images)
    assert "CUDA does not work in a forked process" in refusal_in_a_child(engine, images)
    check(checkpoint(images), engine(images))


def test_graphs_of_a_package_for_the_cpu_are_refused(package: Path) -> None:
    change(package, "machine", "device", value="cpu")
    with pytest.raises(EngineError, match="was compiled for the CPU, and cuda_graphs is for a GPU"):
        Engine.open(package, cuda_graphs=True)


def test_a_real_package(inductor_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(11, 3, 64, 64)).astype(np.float32)
    with Engine.open(inductor_package) as engine:
        expected = engine(images)
    path = tmp_path / inductor_package.name
    for file, copy in ((inductor_package, path), (manifest_path(inductor_package), manifest_path(path))):
        shutil.copy(file, copy)
    change(path, "machine", "device", value="cuda")
    loader = Loader().install(monkeypatch, module._load)
    with Engine.open(path) as engine:
        for _ in range(2):
            check(expected, engine(images))
            check(expected, engine(loader.gpu.tensor(images)), loader.gpu)
    assert loader.gpu.graphs == 2  # of eight and of three
