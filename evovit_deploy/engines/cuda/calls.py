"""Calls with tensors that are on the engine's device: split, filled up, and put together there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch

    from ..base import Engine

__all__ = ["is_on", "run_there"]


def is_on(images: Any, device: str) -> TypeGuard[torch.Tensor]:
    """Return whether images are a tensor on a device, such as ``cuda:0``; PyTorch is not imported for an array."""
    if isinstance(images, np.ndarray) or str(getattr(images, "device", "")) != device:
        return False
    import torch

    return isinstance(images, torch.Tensor)


def run_there(
    engine: Engine,
    images: torch.Tensor,
    run: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    *,
    limit: int | None,
    size_of: Callable[[int], int],
) -> dict[str, torch.Tensor]:
    """Run any number of images that are on the engine's device; nothing leaves it.

    Args:
        engine: Whose ``spec`` says what is taken.
        images: [B, 3, S, S] float32 normalised or [B, S, S, 3] uint8.
        run: Runs one batch.
        limit: Most images that ``run`` takes; None for any number.
        size_of: Number of images -> size of the batch that they are filled up to.

    Returns:
        Output name -> tensor with B rows, on the same device.

    Raises:
        InputError: Wrong shape or dtype.
    """
    import torch

    engine.check_tensor(images)
    parts = []
    for part in torch.split(images.detach(), limit or len(images)):
        count = len(part)
        missing = size_of(count) - count
        if missing > 0:
            part = torch.cat([part, part[:1].expand(missing, *part.shape[1:])])
        found = run(part)
        parts.append({name: value[:count] for name, value in found.items()} if missing > 0 else found)
    return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
