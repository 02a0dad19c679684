"""ONNX Runtime on a GPU: the provider and the GPU are stand-ins, the values are those of the CPU."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from evovit_deploy import Engine
from evovit_deploy.engines import OrtEngine
from evovit_deploy.engines.ort.cuda import Bindings, GpuSession
from evovit_deploy.engines.ort.session import session
from evovit_deploy.errors import EngineError, InputError, ModelFileError
from tests.engines.conduct import closing_during_a_call, refusal_in_a_child
from tests.engines.fake_cuda import FakeGpu
from tests.engines.fake_ort import Provider
from tests.engines.foreign_onnx import SIZE, make_onnx, random_images

Open = Callable[..., OrtEngine]
REFUSED = (
    "This session cannot use the graph capture feature as requested by the user  as all compute graph nodes have not been "
    "partitioned to the CUDAExecutionProvider"
)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    return Provider(FakeGpu()).install(monkeypatch)


@pytest.fixture
def gpu(provider: Provider) -> FakeGpu:
    return provider.gpu


@pytest.fixture
def opened(provider: Provider, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def make(shape: Any = ("n", 3, SIZE, SIZE), kind: int = TensorProto.FLOAT, **options: Any) -> OrtEngine:
            engine = Engine.open(make_onnx(tmp_path / "foreign.onnx", list(shape), kind), **options)
            assert isinstance(engine, OrtEngine)
            return stack.enter_context(engine)

        yield make


@pytest.fixture
def expected(tmp_path: Path) -> Callable[[Any], Any]:
    engine = OrtEngine(make_onnx(tmp_path / "cpu.onnx"), provider="cpu")
    return lambda images: engine(images)["scores"]


@pytest.mark.parametrize("graphs", [True, False, None])
def test_any_batch_size_numpy_and_tensors(opened: Open, expected: Any, gpu: FakeGpu, graphs: bool | None) -> None:
    with opened(cuda_graphs=graphs) as engine:
        assert (engine.device, engine.cuda_graphs, engine.on_torch_stream) == ("cuda:0", graphs is not False, True)
        for n in (1, 3, 8, 5, 3, 1, 13):
            images = random_images(n, n)
            np.testing.assert_array_equal(engine(images)["scores"], expected(images))
            np.testing.assert_array_equal(gpu.value(engine(gpu.tensor(images))["scores"]), expected(images))


def test_the_session_runs_on_the_stream_that_it_was_given(opened: Open, provider: Provider, gpu: FakeGpu) -> None:
    engine = opened(cuda_graphs=True)
    (asked,) = provider.asked
    assert asked["enable_cuda_graph"] == "1"
    assert int(asked["user_compute_stream"]) in set(gpu.streams) - {gpu.default.cuda_stream}
    engine(random_images(2))
    assert len(gpu.streams) == 2  # its own and the caller's
    assert not provider.opened[0].waited


def test_tensors_are_used_where_they_are_without_graphs(opened: Open, provider: Provider, gpu: FakeGpu) -> None:
    engine = opened(cuda_graphs=False)
    images = gpu.tensor(random_images(3))
    result = engine(images)["scores"]
    assert provider.opened[0].addresses == [{"pixels": images.data_ptr(), "scores": result.data_ptr()}]


@pytest.mark.parametrize("graphs", [True, False])
def test_work_of_the_caller_before_and_after_is_in_order(
    opened: Open, expected: Any, gpu: FakeGpu, graphs: bool
) -> None:
    engine = opened(cuda_graphs=graphs)
    first, second = random_images(2, 1), random_images(2, 2)
    stream = gpu._stream()
    with gpu.on(stream):  # whatever happens on it, happens at the very end
        images = gpu.tensor(first)
        before = engine(images)["scores"]
        images.copy_(torch.from_numpy(second), non_blocking=True)  # the caller's buffer is the caller's again
        after = engine(images)["scores"]
        strided = engine(gpu.tensor(np.repeat(second, 2, axis=0))[::2])["scores"]  # of memory that nobody holds
        for found, given in ((before, first), (after, second), (strided, second)):
            np.testing.assert_array_equal(gpu.value(found), expected(given))


def test_a_graph_for_each_batch_size_up_to_sixteen(
    opened: Open, provider: Provider, expected: Any, gpu: FakeGpu
) -> None:
    engine = opened()
    session = provider.opened[0]
    for n in (*range(1, 21), 20, 1, 17):
        images = random_images(n, n)
        np.testing.assert_array_equal(engine(images)["scores"], expected(images))
        np.testing.assert_array_equal(gpu.value(engine(gpu.tensor(images))["scores"]), expected(images))
    assert sorted(session.recorded) == list(range(1, 17))
    assert session.eager == 12  # 17 to 20, 20 and 17, twice each
    assert gpu.graphs == 0  # ONNX Runtime's own


@pytest.mark.parametrize("graphs", [True, False])
def test_inference_mode_of_one_caller_is_nothing_to_the_next(
    opened: Open, expected: Any, gpu: FakeGpu, graphs: bool
) -> None:
    engine, images = opened(cuda_graphs=graphs), random_images(2)
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            np.testing.assert_array_equal(engine(images)["scores"], expected(images))
            np.testing.assert_array_equal(gpu.value(engine(gpu.tensor(images))["scores"]), expected(images))


def test_static_batch_is_filled_up_and_split(opened: Open, provider: Provider, gpu: FakeGpu, expected: Any) -> None:
    engine = opened((4, 3, SIZE, SIZE))
    images = random_images(9)
    np.testing.assert_allclose(engine(images)["scores"], expected(images), atol=1e-6)
    np.testing.assert_allclose(gpu.value(engine(gpu.tensor(images))["scores"]), expected(images), atol=1e-6)
    assert len(provider.opened[0].recorded) == 1


def test_uint8(opened: Open, gpu: FakeGpu, provider: Provider) -> None:
    engine = opened(("n", SIZE, SIZE, 3), TensorProto.UINT8)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    images.flags.writeable = False
    np.testing.assert_array_equal(engine(images)["scores"], gpu.value(engine(gpu.tensor(images))["scores"]))


def test_a_file_with_a_manifest_and_outputs_of_integers(features_model: Path, provider: Provider, gpu: FakeGpu) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    with OrtEngine(features_model, provider="cpu") as reference, OrtEngine(features_model, provider="cuda") as engine:
        expected = reference(images)
        assert engine.spec == reference.spec
        for found in (engine(images), {name: gpu.value(v) for name, v in engine(gpu.tensor(images)).items()}):
            assert list(found) == list(expected)
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value)
                assert found[name].dtype == value.dtype


def test_an_output_whose_size_the_file_does_not_say(tmp_path: Path, provider: Provider, gpu: FakeGpu) -> None:
    path = make_onnx(tmp_path / "x.onnx", extra_outputs=True, output_shape=["n", "classes"])
    images = random_images(3)
    with OrtEngine(path, provider="cpu") as reference, OrtEngine(path, provider="cuda") as engine:
        found = engine(gpu.tensor(images))
        for name, value in reference(images).items():
            np.testing.assert_array_equal(gpu.value(found[name]), value)


@pytest.mark.parametrize("graphs", [True, False])
def test_threads_get_their_own_answers(
    opened: Open, provider: Provider, expected: Any, gpu: FakeGpu, graphs: bool
) -> None:
    engine = opened(cuda_graphs=graphs)
    jobs = [random_images(1 + seed % 5, seed) for seed in range(40)]

    def call(place: int) -> Any:
        if place % 2:
            return engine(jobs[place])["scores"]
        with gpu.on(gpu._stream()):
            return gpu.value(engine(gpu.tensor(jobs[place]))["scores"])

    with ThreadPoolExecutor(4) as pool:
        for images, got in zip(jobs, pool.map(call, range(len(jobs)))):
            np.testing.assert_array_equal(got, expected(images))
    assert len(provider.opened[0].recorded) == (5 if graphs else 0)  # not five for each thread


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("graphs", [True, False])
def test_results_are_not_overwritten_by_the_next_run(opened: Open, gpu: FakeGpu, kind: str, graphs: bool) -> None:
    engine = opened(cuda_graphs=graphs)
    give, take = (gpu.tensor, gpu.value) if kind == "torch" else (np.asarray, np.asarray)
    first: Any = engine(give(random_images(3, 1)))["scores"]  # type: ignore[operator]
    before = np.array(take(first))  # type: ignore[operator]
    engine(give(random_images(3, 2)))  # type: ignore[operator]
    np.testing.assert_array_equal(take(first), before)  # type: ignore[operator]


def test_a_model_that_cannot_be_recorded_runs_without_and_says_so(
    opened: Open, provider: Provider, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider.refuses = REFUSED
    with caplog.at_level(logging.WARNING, "evovit.engines"):
        engine = opened()
    assert not engine.cuda_graphs
    (said,) = caplog.messages
    assert "foreign.onnx runs without CUDA graphs" in said
    assert "have not been partitioned" in said
    images = random_images(2)
    np.testing.assert_array_equal(engine(images)["scores"], expected(images))
    with pytest.raises(
        EngineError, match=r"cannot be recorded as a CUDA graph.*partitioned.*Leave cuda_graphs out"
    ) as e:
        opened(cuda_graphs=True)
    assert e.value.exit_code == 4


def test_another_problem_of_a_model_is_not_taken_for_that(opened: Open, provider: Provider) -> None:
    provider.refuses = "Invalid model"
    with pytest.raises(ModelFileError, match=r"cannot load .*Invalid model"):
        opened()
    assert len(provider.asked) == 1


def test_a_recording_that_fails_says_what_to_do_and_the_engine_goes_on(
    opened: Open, provider: Provider, expected: Any
) -> None:
    engine = opened()
    provider.opened[0].fail = "operation not permitted when stream is capturing"
    with pytest.raises(EngineError, match=r"batches of 2 could not be recorded.*capturing.*cuda_graphs=False"):
        engine(random_images(2))
    provider.opened[0].fail = ""
    images = random_images(2)
    np.testing.assert_array_equal(engine(images)["scores"], expected(images))


def test_while_one_engine_records_the_others_wait(
    opened: Open, provider: Provider, expected: Any, gpu: FakeGpu
) -> None:
    one, other = opened(), opened(cuda_graphs=False)
    images, found = random_images(2), list[Any]()
    given = gpu.tensor(images)

    def call() -> None:
        found.append(other(images)["scores"])
        found.append(gpu.value(other(given)["scores"]))

    def meanwhile() -> None:
        calling.start()
        calling.join(0.05)  # long enough for a call that does not wait to be refused
        assert not found

    calling = threading.Thread(target=call)
    provider.opened[0].while_recording = meanwhile
    np.testing.assert_array_equal(one(images)["scores"], expected(images))
    calling.join(5)
    assert len(found) == 2
    for value in found:
        np.testing.assert_array_equal(value, expected(images))


def test_cuda_graphs_on_a_cpu_are_refused(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx")
    with pytest.raises(EngineError, match="opened on the CPU, and cuda_graphs is for a GPU"):
        Engine.open(path, provider="cpu", cuda_graphs=True)
    with Engine.open(path, provider="cpu", cuda_graphs=False) as engine:
        assert engine(random_images(1))["scores"].shape[0] == 1


def test_wrong_images(opened: Open, gpu: FakeGpu) -> None:
    engine = opened()
    images = random_images(2)
    for wrong in (images.astype(np.float64), images[:, :2], images[0], images[:0]):
        with pytest.raises(InputError):
            engine(wrong)
        if len(wrong):
            with pytest.raises(InputError):
                engine(gpu.tensor(wrong))
    with pytest.raises(InputError, match=r"takes float32 images, not torch.float16. Convert with images.to"):
        engine(torch.from_numpy(images).half())


def test_a_tensor_elsewhere_goes_through_the_host_and_comes_back(opened: Open, expected: Any) -> None:
    images = random_images(2)
    found = opened()(torch.from_numpy(images))["scores"]
    assert (type(found), str(found.device)) == (torch.Tensor, "cpu")
    np.testing.assert_array_equal(found.numpy(), expected(images))


@pytest.mark.parametrize("graphs", [True, False])
def test_closing_waits_for_a_call_and_refuses_the_next(opened: Open, gpu: FakeGpu, graphs: bool) -> None:
    before = set(threading.enumerate())
    engine = opened(cuda_graphs=graphs)
    images = random_images(2)
    engine(images)
    with closing_during_a_call(engine):
        assert engine.session is not None
    engine.close()
    for given in (images, gpu.tensor(images)):
        with pytest.raises(EngineError, match="closed"):
            engine(given)
    assert set(threading.enumerate()) <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_refuses_closes_and_leaves_the_parent_alone(opened: Open, expected: Any) -> None:
    engine, images = opened(), random_images(2)
    engine(images)
    assert "CUDA does not work in a forked process" in refusal_in_a_child(engine, images)
    np.testing.assert_array_equal(engine(images)["scores"], expected(images))


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(
    "kind", ["float32", "float64", "float16", "bfloat16", "uint8", "int8", "int32", "int64", "bool"]
)
def test_the_real_library_takes_the_bindings(tmp_path: Path, kind: str, graphs: bool) -> None:
    """On the CPU, where numbers of graphs mean nothing."""
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    number = getattr(TensorProto, names.get(kind, kind.upper()))
    x, y = (helper.make_tensor_value_info(name, number, ["n", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "i.onnx")
    bindings = Bindings(GpuSession(session(str(tmp_path / "i.onnx"), "cpu", 1), None, graphs), "x", "cpu")
    tensors = {"x": torch.tensor([[1, 0], [0, 1], [1, 1]]).to(getattr(torch, kind))}
    tensors["y"] = torch.zeros_like(tensors["x"])
    again = bindings.record(tensors, None) if graphs else partial(bindings.enqueue, tensors, None)
    for _ in range(2):
        again()
        assert torch.equal(*tensors.values())
        tensors["x"].zero_()
    bindings.close()
