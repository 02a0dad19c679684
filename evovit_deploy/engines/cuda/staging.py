"""A batch from the host's memory to the device: through pinned memory, in parts, so that copying and sending overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["PART_BYTES", "send"]

# Large enough that the threads which PyTorch copies a part with all have work, small enough that the first is on its way soon.
PART_BYTES = 8 << 20


def send(images: np.ndarray[Any, Any], pinned: torch.Tensor, there: torch.Tensor) -> None:
    """Copy a batch to the device on the current stream, without waiting for it to arrive.

    PyTorch copies each part into pinned memory with as many threads as it has (``torch.set_num_threads``); while the next one is
    copied, the device fetches the last.

    Args:
        images: [B, ...], contiguous.
        pinned: [B, ...] page-locked; nothing that was sent from it before is still under way.
        there: [B, ...] on the device.
    """
    rows = max(1, PART_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        _copy(images[part], pinned[part])
        there[part].copy_(pinned[part], non_blocking=True)


def _copy(images: np.ndarray[Any, Any], pinned: torch.Tensor) -> None:
    import torch

    if images.flags.writeable:
        pinned.copy_(torch.from_numpy(images))
    else:  # PyTorch has no tensors that cannot be written, and warns
        pinned.numpy()[...] = images
