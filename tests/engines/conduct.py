"""What is asked of every engine: the same of threads, of a forked child, and while it closes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from evovit_deploy.engines.base import Engine
from evovit_deploy.errors import EngineError
from tests.engines.test_forking import in_child


def logits_from_threads(engine: Engine, inputs: Sequence[Any], times: int = 1) -> list[Any]:
    """The last logits of each input, from a thread of its own that calls so many times; all run at once."""
    found: list[Any] = [None] * len(inputs)

    def work(place: int) -> None:
        for _ in range(times):
            found[place] = engine(inputs[place])["logits"]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def refusal_in_a_child(engine: Engine, images: Any) -> str:
    """Why an engine does not run in a forked child, which closes it."""

    def child() -> str:
        try:
            engine(images)
        except EngineError as error:
            engine.close()
            return str(error)
        return "it ran"

    answer: str = in_child(child)
    return answer


@contextmanager
def closing_during_a_call(engine: Any) -> Iterator[None]:
    """Within it a call is at work and another thread waits to close the engine; afterwards it is closed."""
    with engine._pool.borrow():
        closing = threading.Thread(target=engine.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        yield
    closing.join(5)
    assert not closing.is_alive()
