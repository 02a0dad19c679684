"""Engines and batchers of a process that forks: a child answers or raises, and never waits for threads that it has not."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy import Engine
from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import DeadlineExceeded, EngineError
from evovit_deploy.serve import Batcher

from ..serve.engines import PATIENCE, NumberEngine, images, numbers
from ..trt_models import tiny_onnx

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "evo_deit_digits.pth"


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` gives, or the error it raises, in a forked child, which is killed if it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(2 * PATIENCE)
        try:
            result = work()
        except BaseException as error:
            result = (type(error).__name__, str(error))
        with os.fdopen(write, "wb") as stream:
            stream.write(pickle.dumps(result))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        data = stream.read()
    assert os.waitpid(child, 0)[1] == 0, "the child hung or died"
    return pickle.loads(data)


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "engine(x)": lambda engine, x: engine(x),
    "submit": lambda engine, x: engine.submit(x).result(PATIENCE),
    "submit with a deadline": lambda engine, x: engine.submit(x, timeout=PATIENCE).result(PATIENCE),
    "asubmit": lambda engine, x: asyncio.run(engine.asubmit(x, timeout=PATIENCE)),
}


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime_works_in_a_child_with_threads_of_its_own(threads: int) -> None:
    with Engine.open(tiny_onnx("fp32"), provider="cpu", threads=threads) as engine:
        x = np.random.default_rng(0).random((8, *engine.spec.image_shape), np.float32)
        expected = engine.submit(x).result(PATIENCE)["logits"]
        for way in WAYS.values():
            np.testing.assert_array_equal(in_child(lambda way=way: way(engine, x))["logits"], expected)

        def closes() -> str:
            engine(x)
            engine.close()
            return "closed"

        assert in_child(closes) == in_child(lambda: engine.close() or "closed") == "closed"
        np.testing.assert_array_equal(engine(x)["logits"], expected)


def test_a_file_that_was_replaced_is_not_served_by_a_child(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(Path(tiny_onnx("fp32")).read_bytes())
    with Engine.open(path, provider="cpu") as engine:
        x = np.zeros((1, *engine.spec.image_shape), np.float32)
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(1, 1))
        for way in WAYS.values():
            assert in_child(lambda way=way: way(engine, x))[0] == "EngineError"
        path.unlink()
        assert "Open the engine after the fork" in in_child(lambda: engine(x))[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_pytorch_works_on_one_thread_and_is_refused_on_more(threads: int) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        with Engine.open(DIGITS, provider="cpu", threads=threads) as engine:
            x = np.zeros((1, *engine.spec.image_shape), np.float32)
            expected = engine(x)["logits"]
            for way in WAYS.values():
                result = in_child(lambda way=way: way(engine, x))
                if threads == 1:
                    np.testing.assert_allclose(result["logits"], expected, atol=1e-5)
                else:
                    assert result[0] == "EngineError"
                    assert "2 CPU threads" in result[1]
                    assert "threads=1" in result[1]
            opened = in_child(lambda: Engine.open(DIGITS, provider="cpu")(x))
            assert opened[0] == "EngineError" if threads > 1 else "logits" in opened
            assert "logits" in in_child(lambda: Engine.open(DIGITS, provider="cpu", threads=1)(x))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["cuda:0"])
def test_an_engine_on_a_gpu_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.open(tiny_onnx("fp32"), provider="cpu") as engine:
        monkeypatch.setattr(engine, "device", device)
        x = np.zeros((1, *engine.spec.image_shape), np.float32)
        for way in WAYS.values():
            name, message = in_child(lambda way=way: way(engine, x))
            assert name == "EngineError"
            assert "CUDA does not work in a forked process" in message


def test_a_batcher_begins_anew_in_a_child() -> None:
    with Batcher(NumberEngine(), max_batch=2, workers=2) as batcher:
        assert numbers(batcher.submit(images(1)).result(PATIENCE)) == [1]

        def child() -> Any:
            before = batcher.healthy, threading.active_count()
            answers = [batcher.submit(images(i)) for i in range(20)]
            result = [numbers(future.result(PATIENCE))[0] for future in answers]
            return before, result, batcher.close()

        assert in_child(child) == ((True, 1), list(range(20)), 0)
        assert numbers(batcher.submit(images(2)).result(PATIENCE)) == [2]


def test_deadlines_fire_in_a_child() -> None:
    engine = NumberEngine(hang=(1,))
    with Batcher(engine) as batcher:

        def child() -> Any:
            return batcher.submit(images(1), timeout=0.05).result(PATIENCE)

        assert in_child(child)[0] == DeadlineExceeded.__name__


def test_what_was_accepted_before_the_fork_is_the_parents() -> None:
    engine = NumberEngine()
    with Batcher(engine, max_batch=1) as batcher:
        engine.hold()
        called: list[object] = []
        under_way = batcher.submit(images(1))
        engine.wait_entered()
        waiting = batcher.submit(images(2))
        waiting.add_done_callback(called.append)

        def child() -> Any:
            errors = [future.exception(PATIENCE) for future in (under_way, waiting)]
            return [str(error) for error in errors], called, batcher.queued

        messages, called_there, queued = in_child(child)
        assert all("the parent has its answer" in message for message in messages)
        assert (called_there, queued) == ([], 0)
        engine.release()
        assert numbers(under_way.result(PATIENCE)) + numbers(waiting.result(PATIENCE)) == [1, 2]
        assert called == [waiting]


def test_locks_that_another_thread_held_do_not_stop_a_child() -> None:
    engine = FakeEngine()
    x = np.zeros((1, *engine.spec.image_shape), np.float32)
    from evovit_deploy.engines import base

    engine.submit(x).result(PATIENCE)
    batcher: Any = engine._batcher
    with base._BATCHER, base._REVIVE, batcher._workers._lock:
        assert in_child(lambda: len(engine.submit(x).result(PATIENCE)["logits"])) == 1


def test_a_closed_engine_stays_closed_in_a_child() -> None:
    engine = Engine.open(tiny_onnx("fp32"), provider="cpu")
    engine.close()
    x = np.zeros((1, *engine.spec.image_shape), np.float32)
    assert in_child(lambda: engine(x)) == ("EngineError", f"{engine.spec.name} is closed.")
    with pytest.raises(EngineError, match="is closed"):
        engine(x)


SCRIPT = """
import multiprocessing, os, sys
import numpy as np
from evovit_deploy import Engine

engine = Engine.open(sys.argv[1], provider="cpu", threads=2)
x = np.zeros((8, *engine.spec.image_shape), np.float32)
engine.submit(x).result()


def work():
    engine.submit(x, timeout=60).result()


children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
[child.start() for child in children]
[child.join() for child in children]
assert [child.exitcode for child in children] == [0, 0]
child = os.fork()
work()
if not child:
    print("child", flush=True)
    sys.exit(7)  # as a worker of gunicorn ends
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
engine.close()
print("parent")
"""


def test_processes_that_end_by_themselves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_onnx("fp32"))], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["child", "parent"]), done.stderr
