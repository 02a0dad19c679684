"""For which batch sizes and which device a package is compiled."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import EngineError, InputError
from ...suggest import did_you_mean

__all__ = ["DEVICES", "Batches", "pick_device"]

DEVICES = ("cpu", "cuda")
LARGEST = 64  # of a dynamic batch, if nothing else was asked for


@dataclass(frozen=True)
class Batches:
    """Batch sizes that a package takes: a range, or some sizes, each with code of its own.

    Attributes:
        min, max: Smallest and largest.
        sizes: Static sizes, ascending; empty for the whole range.
    """

    min: int
    max: int
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.min < 1 or self.min > self.max:
            raise InputError(f"batch sizes {self.min} to {self.max}: the smallest is 1, and they must ascend.")
        if self.sizes and (sorted(set(self.sizes)) != list(self.sizes) or (self.min, self.max) != self._ends):
            raise InputError(f"batch sizes {', '.join(map(str, self.sizes))} must ascend, each given once.")

    @property
    def _ends(self) -> tuple[int, int]:
        return self.sizes[0], self.sizes[-1]

    @classmethod
    def static(cls, *sizes: int) -> Batches:
        """Return these sizes and no others."""
        ordered = tuple(sorted(set(sizes)))
        return cls(ordered[0], ordered[-1], ordered)

    @classmethod
    def range(cls, smallest: int | None = None, largest: int | None = None) -> Batches:
        """Return a range; None is 1, and the larger of 64 and the smallest."""
        low = smallest or 1
        return cls(low, largest or max(LARGEST, low))

    def of(self, count: int) -> int:
        """Return the size that ``count`` images run with: itself, or the next larger one that there is."""
        if self.sizes:
            return next(size for size in self.sizes if size >= count)
        return max(self.min, count)

    def __str__(self) -> str:
        return ", ".join(map(str, self.sizes)) if self.sizes else f"{self.min} to {self.max}"


def pick_device(wanted: str = "auto") -> str:
    """Return the device to compile for, or to run on: what is asked for, or a GPU where there is one.

    Raises:
        InputError: No such device.
        EngineError: No GPU that PyTorch can use.
    """
    import torch

    if wanted not in ("auto", *DEVICES):
        raise InputError(
            f"device {wanted!r} is unknown; valid: auto, {', '.join(DEVICES)}.{did_you_mean(wanted, DEVICES)}"
        )
    here = torch.cuda.is_available()
    if wanted == "cuda" and not here:
        raise EngineError("PyTorch cannot use a GPU here. Use cpu as the device, or see `evovit doctor`.")
    return ("cuda" if here else "cpu") if wanted == "auto" else wanted
