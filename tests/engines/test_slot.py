from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from evovit_deploy.engines.cuda.gate import GpuGate
from evovit_deploy.engines.cuda.pool import Pool
from evovit_deploy.engines.cuda.slot import GraphCache
from evovit_deploy.errors import EngineError


def test_graph_cache_forgets_the_one_used_longest_ago() -> None:
    made: list[int] = []

    def make(batch: int) -> str:
        made.append(batch)
        return f"graph {batch}"

    cache = GraphCache(make, limit=2)
    assert [cache.get(batch) for batch in (1, 2, 1, 3, 1, 2)] == [f"graph {batch}" for batch in (1, 2, 1, 3, 1, 2)]
    assert made == [1, 2, 3, 2]
    assert len(cache) == 2


def test_a_full_graph_cache_that_cannot_forget_makes_no_more() -> None:
    cache = GraphCache(str, limit=2, forgets=False)
    assert [cache.get(batch) for batch in (1, 2, 3, 1, 3)] == ["1", "2", None, "1", None]


def test_a_graph_that_cannot_be_recorded_is_not_kept() -> None:
    def make(batch: int) -> Callable[[], None]:
        raise RuntimeError

    cache = GraphCache(make)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            cache.get(1)
    assert len(cache) == 0


def test_pool_reuses_limits_and_survives_a_failure_to_make() -> None:
    made: list[object] = []
    fail = [True]

    def make() -> object:
        if fail.pop() if fail else False:
            raise EngineError("out of memory")
        made.append(object())
        return made[-1]

    pool: Pool[object] = Pool(make, 1)
    with pytest.raises(EngineError, match="out of memory"), pool.borrow():
        pass
    entered = threading.Event()
    with pool.borrow() as first:
        thread = threading.Thread(target=lambda: _borrow_and_set(pool, entered))
        thread.start()
        assert not entered.wait(0.05)  # the limit is one
        assert first is made[0]
    thread.join(5)
    assert entered.is_set()
    assert len(made) == 1
    pool.close()
    with pytest.raises(EngineError, match="closed"), pool.borrow():
        pass


def _borrow_and_set(pool: Pool[object], entered: threading.Event) -> None:
    with pool.borrow():
        entered.set()


def test_closing_a_pool_waits_for_who_is_at_work() -> None:
    pool: Pool[object] = Pool(object, 2)
    closed = threading.Event()

    def close() -> None:
        pool.close()
        closed.set()

    with pool.borrow():
        thread = threading.Thread(target=close)
        thread.start()
        assert not closed.wait(0.05)
    thread.join(5)
    assert closed.is_set()


def test_one_who_is_alone_in_the_gate_waits_for_the_others_and_they_for_it() -> None:
    gate, order = GpuGate(), list[str]()
    inside, leave, left = threading.Event(), threading.Event(), threading.Event()

    def alone() -> None:
        with gate.alone():
            order.append("alone")
            inside.set()
            leave.wait(5)
            order.append("gone")

    def shared() -> None:
        with gate.shared():
            order.append("shared")
        left.set()

    with gate.shared(), gate.shared():  # others may be in it
        first = threading.Thread(target=alone)
        first.start()
        assert not inside.wait(0.05)
    assert inside.wait(5)
    second = threading.Thread(target=shared)
    second.start()
    assert not left.wait(0.05)
    leave.set()
    for thread in (first, second):
        thread.join(5)
    assert order == ["alone", "gone", "shared"]
