"""Seams: places in a model where a value can be multiplied by a power of two and the weights after it divided by it, exactly.

A family's row gives its own (:attr:`.families.Family.seams`); :mod:`evovit_deploy.export.scaling` uses them for FP16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Scaled", "Seam", "Seen"]


class Scaled(NamedTuple):
    """A parameter, or a view of some of it, and the axis that the seam's channels lie on."""

    tensor: Tensor
    axis: int = 0


class Seen(NamedTuple):
    """Where the value shows in the exported graph: a pattern that node names match in full, and channels of their last axis."""

    nodes: str
    first: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Seam:
    """One value between weights that commute with a factor.

    Attributes:
        name: Such as ``blocks.3.attn.value``; files keep it.
        down: What computes the value: scaled down together with it.
        up: What reads it: scaled up by the same power.
        seen: Where its size is looked at.
        channels: How many channels have a power of their own; 0 where all have to have the same.
        norms: Layers whose epsilon is scaled down by the square.
        against: Of a product of two values (q and k): where the other one shows. The power is then what balances the two.
    """

    name: str
    down: tuple[Scaled, ...]
    up: tuple[Scaled, ...]
    seen: tuple[Seen, ...]
    channels: int = 0
    norms: tuple[nn.LayerNorm, ...] = ()
    against: tuple[Seen, ...] = ()
