from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import CancelledError, Future

import pytest

from evovit_deploy.serve.decoding import DaemonThreads, Pixels

from ..docs.pages import ROOT


def test_results_and_errors_are_those_of_the_function() -> None:
    threads = DaemonThreads(2, "t")
    assert [future.result() for future in [threads.submit(pow, 2, n) for n in range(20)]] == [2**n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result()
    assert threads.submit(threading.current_thread).result().name in ("t_0", "t_1")
    threads.shutdown()
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(pow, 1, 1)


def test_what_waits_is_cancelled_and_what_runs_is_not() -> None:
    threads, begun, go = DaemonThreads(1, "t"), threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go.wait()
        return "done"

    running = threads.submit(work)
    begun.wait()
    waiting: list[Future[str]] = [threads.submit(work) for _ in range(3)]
    waiting[0].cancel()
    threads.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    go.set()
    assert running.result() == "done"
    with pytest.raises(CancelledError):
        waiting[1].result()


def test_a_process_ends_while_a_thread_is_at_work() -> None:
    script = (
        "import threading\nfrom evovit_deploy.serve.decoding import DaemonThreads\n"
        "begun = threading.Event()\n"
        "def work():\n    begun.set()\n    threading.Event().wait()\n"
        "DaemonThreads(1, 't').submit(work)\nbegun.wait()\nprint('over')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "over\n", "")


def test_pixels_at_once_are_limited() -> None:
    pixels, lock = Pixels(), threading.Lock()
    now = most = 0

    def decode(count: int) -> None:
        nonlocal now, most
        with pixels.taken(count, 100):
            with lock:
                now += count
                most = max(most, now)
            threading.Event().wait(0.001)
            with lock:
                now -= count

    threads = DaemonThreads(8, "t")
    for future in [threads.submit(decode, count) for count in (60, 30, 100, 10, 50, 50, 1, 99) * 4]:
        future.result()
    threads.shutdown()
    assert 50 < most <= 100


def test_a_failure_gives_its_pixels_back() -> None:
    pixels = Pixels()
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), pixels.taken(100, 100):
            raise ValueError("damaged")
