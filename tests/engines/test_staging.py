"""A batch goes to the device in parts: each is sent before the next one is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy.engines.cuda import staging
from evovit_deploy.engines.cuda.staging import send


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("part", [1, 3 * 16, 1 << 20])
def test_all_of_it_arrives(dtype: str, writeable: bool, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", part)
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4)).astype(dtype)
    images.flags.writeable = writeable
    pinned, there = (torch.full(images.shape, 99, dtype=getattr(torch, dtype)) for _ in range(2))
    send(images, pinned, there)
    np.testing.assert_array_equal(pinned.numpy(), images)
    np.testing.assert_array_equal(there.numpy(), images)


class There:
    """Memory of a device, which notes what has been copied on the host when a part is sent."""

    def __init__(self, pinned: torch.Tensor) -> None:
        self.pinned, self.sent = pinned, list[tuple[int, int]]()

    def __getitem__(self, part: slice) -> There:
        return self

    def copy_(self, part: torch.Tensor, *, non_blocking: bool) -> None:
        assert non_blocking
        self.sent.append((len(part), int((self.pinned[:, 0] != 0).sum())))


@pytest.mark.parametrize(
    ("count", "sent"), [(1, [(1, 1)]), (3, [(3, 3)]), (8, [(3, 3), (3, 6), (2, 8)])], ids=["one", "a part", "several"]
)
def test_a_part_is_sent_before_the_next_is_copied(
    count: int, sent: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", 3 * 5)
    images = np.ones((count, 5), np.uint8)
    pinned = torch.zeros((count, 5), dtype=torch.uint8)
    there: Any = There(pinned)
    send(images, pinned, there)
    assert there.sent == sent
