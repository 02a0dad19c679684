"""Engines that tests hold, break and look into."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from evovit_deploy.engines import FakeEngine

PATIENCE = 30  # seconds after which a wait that should end counts as a hang; never reached by a passing test


def images(*values: int, size: int = 4) -> np.ndarray[Any, Any]:
    """[n, size, size, 3] uint8 that carry a number each, 0 to 65535."""
    result = np.zeros((len(values), size, size, 3), np.uint8)
    result[:, 0, 0, 0] = np.array(values) % 256
    result[:, 0, 0, 1] = np.array(values) // 256
    return result


def numbers(outputs: dict[str, np.ndarray[Any, Any]]) -> list[int]:
    """The numbers that an answer of :class:`NumberEngine` stands for."""
    return [int(value) for value in outputs["logits"][:, 0]]


class NumberEngine(FakeEngine):
    """Answers the number of each image (plus ``add``); can be held at a gate, and fails on chosen numbers."""

    def __init__(self, *, add: int = 0, bad: tuple[int, ...] = (), hang: tuple[int, ...] = (), **options: Any) -> None:
        super().__init__(2, 4, image_input="uint8", **options)
        self.add, self.bad, self.stuck = add, bad, hang
        self.seen: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.released = threading.Event()  # lets hanging runs come back at the end of a test
        self.entered = threading.Semaphore(0)

    def run(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        low, high = images[:, 0, 0, :2].astype(int).T
        values = low + 256 * high
        self.seen.append(values.tolist())
        self.entered.release()
        if set(self.stuck) & set(values.tolist()):
            assert self.released.wait(PATIENCE)
        assert self.gate.wait(PATIENCE)
        if set(self.bad) & set(values.tolist()):
            raise ValueError(f"cannot take {values.tolist()}")
        logits = np.zeros((len(images), 2), np.float32)
        logits[:, 0] = values + self.add
        return {"logits": logits}

    def hold(self) -> None:
        """Runs stop until :meth:`release`."""
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()

    def wait_entered(self) -> None:
        """Until one more run has begun."""
        assert self.entered.acquire(timeout=PATIENCE)
