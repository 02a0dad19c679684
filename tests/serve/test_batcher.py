from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.engines.batching.requests import BatchRecord
from evovit_deploy.errors import DeadlineExceeded, EngineError, InputError, Overloaded
from evovit_deploy.serve import Batcher

from .clock import ManualClock
from .engines import PATIENCE, NumberEngine, images, numbers


@contextmanager
def held(**options: Any) -> Iterator[tuple[NumberEngine, Batcher]]:
    """A batcher whose engine is held in the run of one request, 999, so that what is submitted now waits."""
    engine = NumberEngine()
    with Batcher(engine, **options) as batcher:
        engine.hold()
        first = batcher.submit(images(999))
        engine.wait_entered()
        try:
            yield engine, batcher
        finally:
            engine.release()
        assert numbers(first.result(PATIENCE)) == [999]


def test_one_request() -> None:
    with Batcher(NumberEngine()) as batcher:
        assert numbers(batcher.submit(images(7, 8, 300)).result(PATIENCE)) == [7, 8, 300]
        assert numbers(asyncio.run(batcher.asubmit(images(9)))) == [9]


def test_images_are_checked_once_as_they_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    check = NumberEngine.check
    monkeypatch.setattr(NumberEngine, "check", lambda self, given: (checked.append(len(given)), check(self, given))[1])
    with held(max_batch=4) as (engine, batcher):
        futures = [batcher.submit(images(*values)) for values in ((1,), (2, 3), (4, 5, 6, 7, 8))]
        with pytest.raises(InputError, match="shape"):
            batcher.submit(images(9, size=8))
        engine.release()
        assert [numbers(future.result(PATIENCE)) for future in futures] == [[1], [2, 3], [4, 5, 6, 7, 8]]
    assert checked == [1, 1, 2, 5, 1]  # the one that was held, three that ran, and one that was refused


def test_what_waits_shares_a_batch_in_order_of_arrival() -> None:
    with held(max_batch=4) as (engine, batcher):
        futures = [batcher.submit(images(*values)) for values in ((1,), (2, 3), (4, 5), (6,))]
        assert batcher.queued == 6
        engine.release()
        assert [numbers(future.result(PATIENCE)) for future in futures] == [[1], [2, 3], [4, 5], [6]]
    assert engine.seen == [[999], [1, 2, 3], [4, 5, 6]]
    assert batcher.queued == 0


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    bad=st.sets(st.integers(0, 11), max_size=3),
    max_batch=st.integers(1, 6),
    workers=st.integers(1, 3),
    callers=st.integers(1, 3),
)
def test_every_caller_gets_its_own_rows_whatever_shares_the_batch(
    sizes: list[int], bad: set[int], max_batch: int, workers: int, callers: int
) -> None:
    starts = np.cumsum([0, *sizes]).tolist()
    requests = [images(*range(start, start + size)) for start, size in zip(starts, sizes)]
    wrong = {number for number in bad if number < len(sizes)}
    engine = NumberEngine(bad=tuple(starts[number] for number in wrong))
    with Batcher(engine, max_batch=max_batch, workers=workers) as batcher, ThreadPoolExecutor(callers) as pool:
        futures = list(pool.map(batcher.submit, requests))
        for number, (future, start, size) in enumerate(zip(futures, starts, sizes)):
            if number in wrong:
                with pytest.raises(ValueError, match="cannot take"):
                    future.result(PATIENCE)
            else:
                assert numbers(future.result(PATIENCE)) == list(range(start, start + size))
    assert max(map(len, engine.seen)) <= max_batch


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_with_a_fixed_batch_every_run_is_the_same_size(sizes: list[int]) -> None:
    engine = NumberEngine()
    with Batcher(engine, max_batch=4, fixed_batch=True) as batcher:
        futures = [batcher.submit(images(*range(size))) for size in sizes]
        assert [numbers(future.result(PATIENCE)) for future in futures] == [list(range(size)) for size in sizes]
    assert {len(batch) for batch in engine.seen} == {4}


def test_with_a_fixed_batch_bits_do_not_depend_on_company(digits_model: Path) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    engine = Engine.open(digits_model, provider="cpu", threads=1)
    with engine, Batcher(engine, max_batch=8, fixed_batch=True) as batcher:
        alone = [batcher.submit(batch[i : i + 1]).result(PATIENCE)["logits"] for i in range(11)]
        halves = [batcher.submit(half).result(PATIENCE)["logits"] for half in (batch[:4], batch[4:])]
        together = batcher.submit(batch).result(PATIENCE)["logits"]
    assert np.concatenate(alone).tobytes() == np.concatenate(halves).tobytes() == together.tobytes()


def test_rows_are_not_shared_between_callers() -> None:
    with held(max_batch=8) as (engine, batcher):
        a, b = batcher.submit(images(1)), batcher.submit(images(2))
        engine.release()
        rows = a.result(PATIENCE)["logits"]
        rows[:] = -1
        assert numbers(b.result(PATIENCE)) == [2]
        assert rows.base is None


def test_a_batch_waits_for_company_no_longer_than_the_delay() -> None:
    clock, engine = ManualClock(), NumberEngine()
    with Batcher(engine, max_batch=3, max_delay_ms=10, clock=clock) as batcher:
        a = batcher.submit(images(1))
        clock.advance(0.005)
        b = batcher.submit(images(2))
        assert engine.seen == []
        clock.advance(0.006)
        assert numbers(a.result(PATIENCE)) + numbers(b.result(PATIENCE)) == [1, 2]
        full = batcher.submit(images(3, 4, 5))  # nothing to wait for
        assert numbers(full.result(PATIENCE)) == [3, 4, 5]
        last = batcher.submit(images(6))
    assert numbers(last.result(0)) == [6]  # closing does not wait for the delay either
    assert engine.seen == [[1, 2], [3, 4, 5], [6]]


def test_a_full_queue_refuses_and_recovers() -> None:
    with held(max_queue=3) as (engine, batcher):
        futures = [batcher.submit(images(1, 2)), batcher.submit(images(3))]
        with pytest.raises(Overloaded, match="3 images wait and the queue holds 3"):
            batcher.submit(images(4))
        with pytest.raises(InputError, match="4 images in one request; the queue holds 3"):
            batcher.submit(images(1, 2, 3, 4))
        engine.release()
        assert [numbers(future.result(PATIENCE)) for future in futures] == [[1, 2], [3]]
        assert numbers(batcher.submit(images(4)).result(PATIENCE)) == [4]


def test_wrong_images_fail_before_the_queue() -> None:
    with Batcher(NumberEngine()) as batcher:
        for wrong in (images(1).astype(np.float32), images(1)[0], images()):
            with pytest.raises(InputError):
                batcher.submit(wrong)
        with pytest.raises(InputError, match="give a numpy array"):
            batcher.submit([1, 2])  # type: ignore[arg-type]
        for timeout in (0, -1, float("nan")):
            with pytest.raises(InputError, match="timeout"):
                batcher.submit(images(1), timeout=timeout)


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"max_queue": 0}, {"workers": 0}, {"max_delay_ms": -1}, {"run_timeout": 0}]
)
def test_wrong_limits(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Batcher(NumberEngine(), **options)


def test_the_batch_is_at_most_what_the_engine_takes() -> None:
    with pytest.raises(InputError, match="takes 4 at most"):
        Batcher(NumberEngine(max_batch=4), max_batch=5)
    with Batcher(NumberEngine(max_batch=4)) as batcher:
        assert batcher.max_batch == 4


def test_a_cancelled_request_leaves_the_queue_and_never_runs() -> None:
    with held(max_queue=2) as (engine, batcher):
        unwanted, wanted = batcher.submit(images(1)), batcher.submit(images(2))
        assert unwanted.cancel()
        assert batcher.queued == 1
        another = batcher.submit(images(3))  # its place is free
        engine.release()
        assert numbers(wanted.result(PATIENCE)) + numbers(another.result(PATIENCE)) == [2, 3]
        with pytest.raises(CancelledError):
            unwanted.result(PATIENCE)
    assert engine.seen == [[999], [2, 3]]


def test_cancelling_the_task_cancels_the_request() -> None:
    async def main(batcher: Batcher) -> None:
        task = asyncio.ensure_future(batcher.asubmit(images(1)))
        await asyncio.sleep(0)
        assert batcher.queued == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert batcher.queued == 0

    with held() as (engine, batcher):
        asyncio.run(main(batcher))
    assert engine.seen == [[999]]


def test_deadlines_in_the_queue_and_in_the_engine() -> None:
    clock, engine = ManualClock(), NumberEngine()
    with Batcher(engine, clock=clock, run_timeout=None) as batcher:
        engine.hold()
        running = batcher.submit(images(1), timeout=5)
        engine.wait_entered()
        short, patient = batcher.submit(images(2), timeout=3), batcher.submit(images(3), timeout=100)
        clock.advance(4)
        with pytest.raises(DeadlineExceeded, match="within 3 s"):
            short.result(PATIENCE)
        assert batcher.queued == 1
        assert not running.done()
        clock.advance(2)
        with pytest.raises(DeadlineExceeded, match="within 5 s"):
            running.result(PATIENCE)
        engine.release()
        assert numbers(patient.result(PATIENCE)) == [3]
    assert engine.seen == [[1], [3]]


def test_the_real_clock_wakes_the_watching_thread() -> None:
    engine = NumberEngine(hang=(1, 2))
    batcher = Batcher(engine, run_timeout=0.05)
    with pytest.raises(EngineError, match=r"did not answer within 0\.05 s"):
        batcher.submit(images(1)).result(PATIENCE)
    batcher.close()
    batcher = Batcher(engine, run_timeout=None)
    with pytest.raises(DeadlineExceeded):
        batcher.submit(images(2), timeout=0.05).result(PATIENCE)
    engine.released.set()
    assert batcher.close() == 0


def test_a_run_that_hangs_takes_down_its_request_only() -> None:
    clock, engine = ManualClock(), NumberEngine(hang=(2,))
    batcher = Batcher(engine, clock=clock, run_timeout=10)
    engine.hold()
    first = batcher.submit(images(1))
    engine.wait_entered()
    together = [batcher.submit(images(value)) for value in (2, 3, 4)]
    engine.release()
    assert numbers(first.result(PATIENCE)) == [1]
    engine.wait_entered()  # [2, 3, 4] hangs
    clock.advance(10)
    engine.wait_entered()  # [2] alone hangs
    clock.advance(10)
    assert [numbers(future.result(PATIENCE)) for future in together[1:]] == [[3], [4]]
    with pytest.raises(EngineError, match="did not answer within 10 s"):
        together[0].result(PATIENCE)
    assert batcher.healthy
    assert engine.seen == [[1], [2, 3, 4], [2], [3], [4]]
    assert batcher.close() == 0
    engine.released.set()


def test_when_everything_hangs_requests_are_refused_until_a_run_comes_back() -> None:
    clock, engine = ManualClock(), NumberEngine(hang=(1,))
    batcher = Batcher(engine, clock=clock, run_timeout=10, max_batch=1)
    for _ in range(4):
        stuck = batcher.submit(images(1))
        engine.wait_entered()
        clock.advance(10)
        with pytest.raises(EngineError, match="did not answer"):
            stuck.result(PATIENCE)
    assert not batcher.healthy
    with pytest.raises(EngineError, match="4 runs of the engine hang"):
        batcher.submit(images(2))
    engine.released.set()
    while not batcher.healthy:
        threading.Event().wait(0.001)
    assert numbers(batcher.submit(images(2)).result(PATIENCE)) == [2]
    assert batcher.close() == 0


def test_an_engine_with_missing_rows_is_an_error() -> None:
    engine = FakeEngine(2, 4, image_input="uint8", logits=lambda images: np.zeros((1, 2), np.float32))
    with Batcher(engine) as batcher, pytest.raises(EngineError, match="gave 1 rows of logits for 2 images"):
        batcher.submit(images(1, 2)).result(PATIENCE)


def test_swap_loses_nothing_and_ends_when_the_old_engine_is_idle() -> None:
    with held(max_batch=1) as (engine, batcher):
        before = batcher.submit(images(1))
        new = NumberEngine(add=10000)
        with ThreadPoolExecutor(1) as pool:
            swapping = pool.submit(batcher.swap, new)
            new.wait_entered()  # proves itself on one image first
            while batcher.engine is not new:
                threading.Event().wait(0.001)
            assert not swapping.done()
            after = batcher.submit(images(2))
            engine.release()
            assert swapping.result(PATIENCE) is engine
        assert numbers(before.result(PATIENCE)) == [10001]
        assert numbers(after.result(PATIENCE)) == [10002]
    assert engine.seen == [[999]]


def test_an_engine_that_does_not_fit_or_run_is_not_swapped_in() -> None:
    engine = NumberEngine()
    with Batcher(engine) as batcher:
        with pytest.raises(InputError, match="image_shape"):
            batcher.swap(FakeEngine(2, 8, image_input="uint8"))
        with pytest.raises(InputError, match="num_classes is 3"):
            batcher.swap(FakeEngine(3, 4, image_input="uint8"))
        with pytest.raises(ValueError, match="cannot take"):
            batcher.swap(NumberEngine(bad=(0,)))
        assert batcher.engine is engine
        assert numbers(batcher.submit(images(5)).result(PATIENCE)) == [5]


def test_swaps_under_load_lose_nothing() -> None:
    with Batcher(NumberEngine(), max_batch=4, max_queue=1000) as batcher, ThreadPoolExecutor(3) as pool:

        def caller(offset: int) -> None:
            for value in range(offset, offset + 60):
                assert numbers(batcher.submit(images(value)).result(PATIENCE))[0] % 10000 == value

        callers = [pool.submit(caller, 100 * number) for number in range(3)]
        for number in range(1, 6):
            batcher.swap(NumberEngine(add=10000 * number))
        for done in callers:
            done.result(PATIENCE)


def test_close_drains_then_refuses() -> None:
    with held() as (engine, batcher):
        waiting = batcher.submit(images(1))
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(batcher.close)
            while batcher.healthy:
                threading.Event().wait(0.001)
            with pytest.raises(Overloaded, match="closed"):
                batcher.submit(images(2))
            engine.release()
            assert closing.result(PATIENCE) == 0
        assert numbers(waiting.result(0)) == [1]


def test_close_without_draining_refuses_what_waits() -> None:
    with held() as (engine, batcher), ThreadPoolExecutor(1) as pool:
        waiting = batcher.submit(images(1))
        closing = pool.submit(batcher.close, drain=False)
        while batcher.queued:
            threading.Event().wait(0.001)
        engine.release()
        assert closing.result(PATIENCE) == 1
        with pytest.raises(Overloaded):
            waiting.result(PATIENCE)
    assert engine.seen == [[999]]


def test_close_gives_up_after_its_timeout() -> None:
    clock, engine = ManualClock(), NumberEngine(hang=(1,))
    batcher = Batcher(engine, clock=clock, run_timeout=None, max_batch=1)
    stuck = batcher.submit(images(1))
    engine.wait_entered()
    waiting = batcher.submit(images(2))
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close, timeout=20)
        while batcher.healthy:
            threading.Event().wait(0.001)
        clock.advance(20)
        assert closing.result(PATIENCE) == 2
    for future in (stuck, waiting):
        with pytest.raises(Overloaded):
            future.result(PATIENCE)
    engine.released.set()


def test_records_say_what_ran() -> None:
    records: list[BatchRecord] = []

    def note(record: BatchRecord) -> None:
        records.append(record)
        raise RuntimeError("an observer that breaks does not matter")

    clock, engine = ManualClock(), NumberEngine(bad=(3,))
    with Batcher(engine, clock=clock, max_batch=8, on_batch=note) as batcher:
        engine.hold()
        first = batcher.submit(images(1))
        engine.wait_entered()
        rest = [batcher.submit(images(2, 5)), batcher.submit(images(3))]
        clock.advance(2)
        engine.release()
        numbers(first.result(PATIENCE) | rest[0].result(PATIENCE))
        assert isinstance(rest[1].exception(PATIENCE), ValueError)
    assert [(r.images, r.waited, r.seconds, r.failed) for r in records[:2]] == [
        (1, (0.0,), 2.0, False),
        (3, (2.0, 2.0), 0.0, True),
    ]
    assert [(r.images, r.failed) for r in records[2:]] == [(2, False), (1, True)]


def test_images_are_let_go_of_with_the_answer() -> None:
    batch = images(1)
    kept = weakref.ref(batch)
    with Batcher(NumberEngine()) as batcher:
        future = batcher.submit(batch)
        del batch
        future.result(PATIENCE)
        batcher.submit(images(2)).result(PATIENCE)
        gc.collect()
        assert kept() is None


def test_engine_submit_makes_a_batcher_and_close_ends_it() -> None:
    engine = NumberEngine()
    assert numbers(engine.submit(images(1)).result(PATIENCE)) == [1]
    assert numbers(asyncio.run(engine.asubmit(images(2)))) == [2]
    batcher = engine._batcher
    assert batcher is not None
    engine.close()
    assert not batcher.healthy
    engine.close()
