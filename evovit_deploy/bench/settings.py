"""How to measure: batch sizes, how long, and what beside latency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = ["ARRIVALS", "KINDS", "METHOD", "STOCK_COMPILED", "Settings", "baselines_of"]

METHOD = "median of the ratios of neighbouring turns in either order"
ARRIVALS = ("poisson", "constant")
# Of a vanilla model to measure against. What runs in PyTorch whatever the model runs in comes last.
STOCK_COMPILED = "stock-compiled"
KINDS = ("twin", "trimmed", "stock", STOCK_COMPILED)


def baselines_of(text: str) -> tuple[str, ...]:
    """Split what was given as a baseline: names and files between commas; a file whose own name has one stays whole.

    Raises:
        InputError: One is given twice, is empty, or ``none`` is among others.
    """
    if Path(text).is_file():
        return (text,)
    found = tuple(part.strip() for part in text.split(","))
    if "" in found:
        raise InputError(
            f"--baseline {text!r} has an empty part. Give names or files between commas: twin,stock-compiled"
        )
    if len({"twin" if one == "auto" else one for one in found}) < len(found):
        raise InputError(f"--baseline {text} has the same baseline twice (auto is the twin). Give each once.")
    if "none" in found and len(found) > 1:
        raise InputError(f"--baseline {text}: none stands alone. Leave it out, or give none by itself.")
    return found


@dataclass(frozen=True)
class Settings:
    """How to measure, and how it was measured.

    Attributes:
        batches: Batch sizes.
        min_seconds, min_calls: Time and calls that each model is measured for at each batch size, at least both.
        max_seconds: A point stops here even if ``min_calls`` is not reached; six rounds are always made.
        warmup_seconds, warmup_calls: Unmeasured runs before each point, both at least.
        warmup_limit: Seconds; a model's warm-up stops here even if ``warmup_calls`` is not reached; three calls are always made.
        until_flat: Stop at the first batch size at which no model's throughput grows any more.
        streams: Numbers of concurrent callers to measure throughput with.
        rate: Requests a second to send, each of one batch, whether or not the last one is done; None does not pace.
        arrivals: ``poisson`` or ``constant`` distances between those requests.
        confidence: Of the interval of the speedup.
        seed: Of the images, the arrivals and the interval.
        method: How the speedup was computed.
    """

    batches: tuple[int, ...] = (1, 8)
    min_seconds: float = 10.0
    min_calls: int = 500
    max_seconds: float = 60.0
    warmup_seconds: float = 0.5
    warmup_calls: int = 50
    warmup_limit: float = 10.0
    until_flat: bool = False
    streams: tuple[int, ...] = ()
    rate: float | None = None
    arrivals: str = "poisson"
    confidence: float = 0.95
    seed: int = 0
    method: str = METHOD

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) != len(self.batches):
            raise InputError(f"batch sizes {list(self.batches)}; give different numbers from 1, for example 1,8.")
        if self.min_seconds < 0 or self.min_calls < 1:
            raise InputError(
                f"min_seconds is {self.min_seconds:g} and min_calls {self.min_calls}; they are at least 0 and 1."
            )
        if self.max_seconds < self.min_seconds:
            raise InputError(f"max_seconds {self.max_seconds:g} is below min_seconds {self.min_seconds:g}.")
        if self.streams and (min(self.streams) < 1 or len(set(self.streams)) != len(self.streams)):
            raise InputError(f"streams {list(self.streams)}; give different numbers from 1, for example 1,2,4.")
        if self.rate is not None and self.rate <= 0:
            raise InputError(f"rate is {self.rate:g}; give requests per second, above 0.")
        if self.arrivals not in ARRIVALS:
            raise InputError(f"arrivals are {self.arrivals!r}; valid: {', '.join(ARRIVALS)}.")
