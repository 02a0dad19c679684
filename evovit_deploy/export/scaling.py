"""Powers of two into neighbouring weights: the same function, exactly, with values that fit into FP16.

Where that is possible is a fact of a family, its seams (:mod:`evovit_deploy.models.seams`). Here it is decided by how much.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines.emulate import FP16_MAX

if TYPE_CHECKING:
    from ..models.seams import Scaled, Seam, Seen

__all__ = ["in_words", "propose", "rescale"]

Array = NDArray[Any]
Powers = Mapping[str, "int | Array"]
ROOM = 2.0**13  # what a value that is scaled down is brought below
SMALL = 2.0**-10  # what is all below this is scaled up: FP16 has its eleven bits down to 2^-14 only
STEP = 4  # powers of single channels are multiples of it: few kinds of channels are easier to tell of


def propose(seams: Iterable[Seam], largest: Mapping[str, Array]) -> dict[str, int | Array]:
    """Return seam -> by what power of two to scale it down (negative: up), or one power for each channel; only what needs it.

    Args:
        seams: Of the FP32 module, as it is exported.
        largest: Node -> largest magnitudes [C] of its value in FP32, along its last axis.
    """
    found: dict[str, int | Array] = {}
    for seam in seams:
        seen = _seen(seam.seen, largest, seam.channels)
        top = np.maximum(seen, _weights(seam.down, seam.channels))
        if seam.against:
            other = max(float(_seen(seam.against, largest, 0)), float(_weights(seam.up, 0)))
            if power := _balance(float(top), other):
                found[seam.name] = power
        elif not seam.channels:
            if power := _wanted(float(top), float(seen)):
                found[seam.name] = power
        elif (powers := _by_channel(top, seen)).any():
            found[seam.name] = int(powers[0]) if (powers == powers[0]).all() else powers
    return found


def rescale(seams: Sequence[Seam], powers: Powers) -> None:
    """Scale a module in place, at its seams; every weight is multiplied by a power of two, and the function stays.

    Args:
        seams: Of the FP32 module that is changed.
        powers: From :func:`propose`.
    """
    import torch

    known = {seam.name: seam for seam in seams}
    with torch.no_grad():
        for name, power in powers.items():
            seam = known[name]
            for parts, sign in ((seam.down, -1.0), (seam.up, 1.0)):
                for tensor, axis in parts:
                    factor = torch.as_tensor(np.exp2(sign * np.asarray(power, np.float64)), dtype=tensor.dtype)
                    shape = [-1 if i == axis else 1 for i in range(tensor.dim())]
                    tensor.mul_(factor if factor.dim() == 0 else factor.view(shape))
            for norm in seam.norms:
                norm.eps *= 4.0 ** -int(power)


def in_words(powers: Powers) -> dict[str, int]:
    """Return the powers as manifests have them: seam, and how many of its channels unless it is all of them -> power."""
    told: dict[str, int] = {}
    for name, power in powers.items():
        if isinstance(power, int):
            told[name] = power
            continue
        for value, count in sorted(Counter(power.tolist()).items()):
            if value:
                told[f"{name}, {count} of {len(power)} channels"] = int(value)
    return told


def _by_channel(top: Array, seen: Array) -> Array:
    """One power for all channels where most of them are out of range; and what single ones need beyond it."""
    each = np.array([_wanted(a, b) for a, b in zip(top, seen)])
    common = _power(float(top.max())) if (each > 0).mean() > 0.5 else 0
    rest = [_wanted(a, b) for a, b in zip(top * 2.0**-common, seen * 2.0**-common)]
    whole: Array = common + np.array([STEP * math.ceil(power / STEP) for power in rest])  # rather too far down than up
    return whole


def _seen(places: Sequence[Seen], largest: Mapping[str, Array], channels: int) -> Array:
    """Largest magnitude over some nodes: of each channel, or of all."""
    found: Array = np.zeros(channels or 1)
    for nodes, first, stop in places:
        pattern = re.compile(nodes)
        for name, sizes in largest.items():
            if pattern.fullmatch(name) is None:
                continue
            part = sizes[first:stop] if stop is None or len(sizes) >= stop else sizes
            if not channels:
                found = np.maximum(found, part.max(initial=0.0))
            elif len(part) == channels:
                found = np.maximum(found, part)
    return found if channels else found[0]


def _weights(parts: Sequence[Scaled], channels: int) -> Array:
    """Largest magnitude of weights: of each channel, or of all."""
    found: Array = np.zeros(channels or 1)
    for tensor, axis in parts:
        sizes = tensor.detach().abs()
        if channels and tensor.shape[axis] == channels:
            found = np.maximum(found, sizes.transpose(0, axis).reshape(channels, -1).amax(1).numpy())
        else:
            found = np.maximum(found, float(sizes.max()))
    return found if channels else found[0]


def _balance(top: float, other: float) -> int:
    """Half of the powers of two that lie between both sides of a product; 0 where both fit."""
    apart = max(top, other) > FP16_MAX / 2 or (min(top, other) < SMALL and max(top, other) > 1)
    return round(math.log2(top / other) / 2) if apart and top and other else 0


def _power(top: float) -> int:
    """The power of two that brings a value below :data:`ROOM`."""
    return math.ceil(math.log2(top / ROOM)) if math.isfinite(top) else 0


def _wanted(top: float, seen: float) -> int:
    """How far down (or up, negative) a value has to go; 0 where it is fine."""
    if top > FP16_MAX / 2:
        return _power(top)
    if 0 < seen < SMALL:
        return math.floor(math.log2(seen))  # to about 1
    return 0
