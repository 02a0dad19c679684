from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy import Engine
from evovit_deploy.building.build import build_engine
from evovit_deploy.engines.trt import tensorrt as backend
from evovit_deploy.engines.trt.api import Api, Gpu, find_gpu
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.engines.trt.tensorrt import TrtEngine
from evovit_deploy.errors import EngineError, InputError, ModelFileError
from tests.engines.fake_cuda import FakeGpu
from tests.engines.fake_trt import CLASSES, SIZE, FakeTrtEngine, fake_trt, logits_of, write_plan
from tests.trt_models import tiny_onnx

Open = Callable[..., TrtEngine]


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def fake(gpu: FakeGpu) -> FakeTrtEngine:
    return FakeTrtEngine(gpu)


@pytest.fixture
def open_engine(fake: FakeTrtEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "find_gpu", lambda index: Gpu(index, "Fake GPU", "8.9", 1 << 30))
    monkeypatch.setattr(backend, "CudaDevice", fake.gpu.device)

    def opened(flavour: str = "tensorrt", engine: FakeTrtEngine | None = fake, **options: Any) -> TrtEngine:
        rtx = flavour == "tensorrt-rtx"
        version = (1, 7, 1, 116) if rtx else (10, 12, 0, 36)
        api = Api(fake_trt(engine, ("no room",)), flavour, ".".join(map(str, version)))
        monkeypatch.setattr(backend, "load_api", lambda name: api)
        path = write_plan(tmp_path / "model.engine", b"vtrt" if rtx else b"ftrt", version)
        return TrtEngine(path, **options)

    return opened


def images(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, 3, SIZE, SIZE)).astype(np.float32)


MODES = [("tensorrt", True), ("tensorrt", False), ("tensorrt-rtx", True), ("tensorrt-rtx", False)]


@pytest.mark.parametrize(("flavour", "graphs"), MODES)
def test_any_batch_size_numpy_and_tensors(open_engine: Open, fake: FakeTrtEngine, flavour: str, graphs: bool) -> None:
    with open_engine(flavour, cuda_graphs=graphs, warm_up=()) as engine:
        assert engine.backend == flavour
        for n in (1, 2, 5, 8, 9, 20):
            batch = images(n, n)
            found = engine(batch)["logits"]
            assert found.shape == (n, CLASSES)
            np.testing.assert_allclose(found, logits_of(batch), rtol=1e-5, atol=1e-6)
            tensor = engine(fake.gpu.tensor(batch))["logits"]
            np.testing.assert_allclose(fake.gpu.value(tensor), logits_of(batch), rtol=1e-5, atol=1e-6)
            elsewhere = engine(torch.from_numpy(batch))["logits"]
            assert str(elsewhere.device) == "cpu"
            np.testing.assert_array_equal(elsewhere.numpy(), found)
    assert min(fake.runs) == 2  # one image is padded to the profile's minimum
    assert max(fake.runs) == 8  # twenty are split at its maximum


def test_the_spec_of_a_plan_without_manifest(open_engine: Open) -> None:
    spec = open_engine().spec
    assert (spec.name, spec.image_size, spec.input, spec.num_classes) == ("model", SIZE, "float32", CLASSES)
    assert (spec.outputs, spec.batch, spec.max_batch, spec.manifest) == (("logits",), None, 8, None)


def test_tensors_are_used_where_they_are_without_graphs(open_engine: Open, fake: FakeTrtEngine) -> None:
    engine = open_engine(cuda_graphs=False, warm_up=())
    batch = fake.gpu.tensor(images(3))
    result = engine(batch)["logits"]
    assert fake.contexts[0].addresses == {"images": batch.data_ptr(), "logits": result.data_ptr()}
    found = engine(fake.gpu.tensor(images(6))[::2])["logits"]  # of memory that nobody holds any more
    np.testing.assert_allclose(fake.gpu.value(found), logits_of(images(6)[::2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_results_are_not_overwritten_by_the_next_run(open_engine: Open, gpu: FakeGpu, kind: str) -> None:
    engine = open_engine()
    give, take = (gpu.tensor, gpu.value) if kind == "torch" else (np.asarray, np.asarray)
    first: Any = engine(give(images(3, 1)))["logits"]  # type: ignore[operator]
    before = np.array(take(first))  # type: ignore[operator]
    engine(give(images(3, 2)))  # type: ignore[operator]
    np.testing.assert_array_equal(take(first), before)  # type: ignore[operator]


@pytest.mark.parametrize(("flavour", "graphs"), MODES)
def test_work_of_the_caller_before_and_after_is_in_order(
    open_engine: Open, gpu: FakeGpu, flavour: str, graphs: bool
) -> None:
    engine = open_engine(flavour, cuda_graphs=graphs, warm_up=())
    first, second = images(2, 1), images(2, 2)
    with gpu.on(gpu._stream()):  # whatever happens on it, happens at the very end
        given = gpu.tensor(first)
        before = engine(given)["logits"]
        given.copy_(torch.from_numpy(second), non_blocking=True)
        after = engine(given)["logits"]
        for found, of in ((before, first), (after, second)):
            np.testing.assert_allclose(gpu.value(found), logits_of(of), rtol=1e-5, atol=1e-6)


def test_a_graph_for_each_batch_size_with_a_context_of_its_own(open_engine: Open, fake: FakeTrtEngine) -> None:
    engine = open_engine(warm_up=(4,))
    assert fake.gpu.graphs == 1
    for n in (4, 2, 8, 4, 2, 8):
        engine(images(n))
    assert fake.gpu.graphs == 3
    assert sorted(len(context.shapes) for context in fake.contexts) == [1, 1, 1]


def test_rtx_records_graphs_itself(open_engine: Open, fake: FakeTrtEngine) -> None:
    engine = open_engine("tensorrt-rtx")
    assert (fake.gpu.graphs, fake.config.cuda_graph_strategy, len(fake.contexts)) == (0, "whole graph", 1)
    engine.close()
    open_engine("tensorrt-rtx", cuda_graphs=False)
    assert fake.config.cuda_graph_strategy == "disabled"


def test_warm_up_runs_what_is_in_the_profile(open_engine: Open, fake: FakeTrtEngine) -> None:
    open_engine(cuda_graphs=False)
    assert fake.runs == [4]
    fake.runs.clear()
    open_engine(cuda_graphs=False, warm_up=(1, 2, 8, 64))
    assert fake.runs == [2, 8]


@pytest.mark.parametrize(("flavour", "graphs"), MODES)
def test_threads_never_share_a_context(open_engine: Open, fake: FakeTrtEngine, flavour: str, graphs: bool) -> None:
    engine = open_engine(flavour, cuda_graphs=graphs, max_contexts=3, warm_up=())
    fake.latency = 0.002
    batches = [images(1 + i % 8, i) for i in range(48)]

    def call(i: int) -> Any:
        if i % 2:
            return engine(batches[i])["logits"]
        with fake.gpu.on(fake.gpu._stream()):
            return fake.gpu.value(engine(fake.gpu.tensor(batches[i]))["logits"])

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(call, range(len(batches))))
    for batch, result in zip(batches, results):
        np.testing.assert_allclose(result, logits_of(batch), rtol=1e-5, atol=1e-6)
    assert fake.collisions == 0
    if not (graphs and flavour == "tensorrt"):  # there, each graph adds a context to its slot
        assert 1 < len(fake.contexts) <= 3


def test_a_failed_run_is_an_error_and_the_engine_goes_on(open_engine: Open, fake: FakeTrtEngine) -> None:
    engine = open_engine(cuda_graphs=False, max_contexts=1)
    fake.fail = True
    with pytest.raises(EngineError, match="failed while running"):
        engine(images(2))
    fake.fail = False
    np.testing.assert_allclose(engine(images(2))["logits"], logits_of(images(2)), rtol=1e-5, atol=1e-6)


def test_wrong_images(open_engine: Open) -> None:
    engine = open_engine()
    for wrong in (images(2).astype(np.float64), images(2)[:, :2], images(2)[0], images(0)):
        with pytest.raises(InputError):
            engine(wrong)
        with pytest.raises(InputError):
            engine(torch.from_numpy(wrong))
    with pytest.raises(InputError):
        engine(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.bfloat16))


def test_closing(open_engine: Open) -> None:
    engine = open_engine()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine(images(2))


def test_the_runtime_cache_of_rtx_is_kept_on_disk(open_engine: Open, fake: FakeTrtEngine, tmp_path: Path) -> None:
    engine = open_engine("tensorrt-rtx")
    (saved,) = (tmp_path / "cache" / "runtime").glob("*.bin")
    assert saved.name.startswith("tensorrt-rtx-1.7.1.116-Fake_GPU_8.9-")
    assert saved.read_bytes() == b"compiled"
    engine.close()
    saved.write_bytes(b"earlier ")
    with open_engine("tensorrt-rtx"):
        assert fake.config.cache.known == b"earlier "
    assert saved.read_bytes() == b"earlier compiled"
    with open_engine("tensorrt-rtx", runtime_cache=tmp_path / "mine.bin"):
        pass
    assert (tmp_path / "mine.bin").read_bytes() == b"compiled"
    saved.unlink()
    with open_engine("tensorrt-rtx", runtime_cache=False):
        assert fake.config.cache is None
    assert not saved.exists()


def test_a_plan_that_tensorrt_refuses(open_engine: Open) -> None:
    with pytest.raises(EngineError, match=r"cannot load .*no room\. Build it on this machine: evovit build"):
        open_engine(engine=None)


@pytest.mark.parametrize("shape", [(-1, 3, SIZE, 5), (-1, 1, SIZE, SIZE), (-1, 3, -1, SIZE), (4, 3 * SIZE * SIZE)])
def test_a_plan_that_takes_no_images(open_engine: Open, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFileError):
        open_engine(engine=FakeTrtEngine(FakeGpu(), shape))


def test_a_static_plan(open_engine: Open, gpu: FakeGpu) -> None:
    static = FakeTrtEngine(gpu, (4, 3, SIZE, SIZE))
    engine = open_engine(engine=static)
    assert (engine.spec.batch, engine.spec.max_batch) == (4, 4)
    for n in (1, 4, 6):
        np.testing.assert_allclose(engine(images(n))["logits"], logits_of(images(n)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            gpu.value(engine(gpu.tensor(images(n)))["logits"]), logits_of(images(n)), rtol=1e-5, atol=1e-6
        )
    assert set(static.runs) == {4}


def test_the_flavour_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_plan(tmp_path / "model.engine", b"ftrt", (10, 12, 0, 36))
    have = {"tensorrt-rtx"}

    def load(flavour: str) -> Api:
        if flavour not in have:
            raise EngineError(f"{flavour} is not installed.")
        return Api(None, flavour, "1.7.1.116")

    monkeypatch.setattr(backend, "load_api", load)
    with pytest.raises(EngineError, match=f"evovit build MODEL.onnx -o {path} --target tensorrt-rtx"):
        TrtEngine(path)
    have.clear()
    with pytest.raises(EngineError, match=r"^tensorrt is not installed"):
        TrtEngine(path)


def test_a_real_engine_without_a_gpu_says_so(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    path = build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target="tensorrt-rtx")).path
    with pytest.raises(EngineError, match="needs an NVIDIA GPU with a working driver") as caught:
        Engine.open(path)
    assert caught.value.exit_code == 4
    with pytest.raises(EngineError, match="runs on a GPU only"):
        Engine.open(path, provider="cpu")
    path.with_name(path.name + ".json").unlink()
    with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
        Engine.open(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="cut short"):
        Engine.open(path)


def test_a_real_engine_runs_on_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    gpu = find_gpu()
    if gpu is None:
        pytest.skip("no GPU here: running a real engine is not tested")
    result = build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target="tensorrt-rtx", max_batch=8))
    if result.parity is None:
        pytest.skip(f"TensorRT-RTX does not run on this GPU: {result.notes}")
    assert result.parity.passed
    batch = np.random.default_rng(0).normal(size=(11, 3, 64, 64)).astype(np.float32)
    with TrtEngine(result.path) as engine, TrtEngine(result.path, cuda_graphs=False) as eager:
        expected = engine(batch)["logits"]
        np.testing.assert_array_equal(eager(batch)["logits"], expected)
        tensor = engine(torch.from_numpy(batch).cuda())["logits"]
        assert tensor.is_cuda
        np.testing.assert_array_equal(tensor.cpu().numpy(), expected)
        with ThreadPoolExecutor(6) as threads:
            for found in threads.map(lambda _: engine(batch)["logits"], range(12)):
                np.testing.assert_array_equal(found, expected)


def test_max_contexts_is_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_contexts is 0"):
        TrtEngine(write_plan(tmp_path / "m.engine"), max_contexts=0)
