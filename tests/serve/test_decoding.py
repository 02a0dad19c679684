from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from PIL import Image

from evovit_deploy.serve.decoding import DaemonThreads, PixelBudget

from ..docs.pages import ROOT
from .engines import NumberEngine
from .running import always, running


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


def test_the_end_is_an_error_for_what_waits_and_what_runs() -> None:
    threads, begun, go = DaemonThreads(1, "t"), threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go.wait()
        return "done"

    running = threads.submit(work)
    begun.wait()
    waiting: list[Future[str]] = [threads.submit(work) for _ in range(3)]
    waiting[0].cancel()
    assert threads.end(OSError("over")) == 3
    assert threads.end(OSError("again")) == 0
    assert waiting[0].cancelled()
    for future in (running, *waiting[1:]):
        with pytest.raises(OSError, match="over"):
            future.result()
    go.set()


def test_who_went_away_is_not_counted() -> None:
    threads, begun, go = DaemonThreads(1, "t"), threading.Event(), threading.Event()
    running = threads.submit(lambda: (begun.set(), go.wait()))
    begun.wait()
    assert not running.cancel()
    assert threads.end(OSError("over")) == 0
    go.set()


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
    async def main() -> int:
        pixels, used, most = PixelBudget(100), 0, 0

        async def decode(count: int) -> None:
            nonlocal used, most
            if not pixels.take(count):
                await pixels.wait(count)
            used += count
            most = max(most, used)
            await asyncio.sleep(0)
            used -= count
            pixels.give(count)

        await asyncio.gather(*(decode(count) for count in (60, 30, 100, 10, 50, 50, 1, 99) * 4))
        assert pixels.take(100)
        return most

    assert asyncio.run(main()) in range(61, 101)


def test_the_smallest_goes_first_and_a_larger_one_than_allowed_alone() -> None:
    async def main() -> list[int]:
        pixels, order = PixelBudget(100), list[int]()

        async def decode(count: int) -> None:
            await pixels.wait(count)
            order.append(count)
            assert not pixels.take(95)
            pixels.give(count)

        assert pixels.take(100)
        work = [asyncio.ensure_future(decode(count)) for count in (300, 90, 40, 60, 70)]
        await asyncio.sleep(0)
        pixels.give(100)
        await asyncio.gather(*work)
        return order

    assert asyncio.run(main()) == [40, 60, 70, 90, 300]


def test_who_goes_away_takes_no_pixels() -> None:
    async def main() -> None:
        pixels = PixelBudget(100)
        for at_once in (False, True):
            assert pixels.take(100)
            waiting = [asyncio.ensure_future(pixels.wait(80)) for _ in range(3)]
            await asyncio.sleep(0)
            if not at_once:
                waiting[0].cancel()
                waiting[1].cancel()
            pixels.give(100)  # granted to the first that waits, which may be cancelled before it hears of it
            if at_once:
                waiting[0].cancel()
                waiting[1].cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert not waiting[2].cancelled()
            assert not pixels.take(80)
            pixels.give(80)
            assert pixels.take(100)
            pixels.give(100)

    asyncio.run(main())


def test_the_end_of_a_service_ends_what_waits_for_pixels() -> None:
    async def main() -> None:
        pixels = PixelBudget(100)
        assert pixels.take(100)
        waiting = [asyncio.ensure_future(pixels.wait(count)) for count in (10, 20, 30)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert pixels.end(OSError("over")) == 2
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in found] == [OSError, asyncio.CancelledError, OSError]
        pixels.give(100)
        with pytest.raises(OSError, match="over"):
            await pixels.wait(1)

    asyncio.run(main())


def noise(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (90, 30, 10)).save(stream, "PNG")
    return stream.getvalue()


def test_images_that_do_not_fit_at_once_are_all_answered() -> None:
    with running(always(NumberEngine()), max_pixels=10_000) as service:
        bodies = [noise(side) for side in (100, 90, 8, 100, 60) * 4]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda body: service.call("POST", "/v1/classify", body)[0], bodies))
        assert found == [200] * len(bodies)
        assert service.service.pixels.take(10_000)


def test_damage_gives_the_pixels_back() -> None:
    with running(always(NumberEngine()), max_pixels=10_000) as service:
        for _ in range(3):
            assert service.call("POST", "/v1/classify", noise(100)[:-60])[0] == 400
        assert service.service.pixels.take(10_000)
