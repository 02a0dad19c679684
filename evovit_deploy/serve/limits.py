"""What a service accepts and waits for: meaning, default, bounds and unit of each limit, here and nowhere else.

Settings of a service, arguments of a Ray application, options of packages and of the command line take them from here.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from ..errors import InputError

__all__ = ["LONGEST", "Limit", "Limits", "about", "check_limits", "limit", "same", "seconds"]

LONGEST = 30 * 24 * 3600  # seconds; beyond their own limit, platforms raise OverflowError instead of waiting
LIMIT = "limit"  # where a field keeps its own


@dataclass(frozen=True)
class Limit:
    """What a limit is, beside its default.

    Attributes:
        help: One sentence, for the command line.
        unit: Of its value: ``N``, ``KIB``, ``MIB``, ``MS`` or ``SECONDS``.
        least, above, most: What is valid: from, more than, up to; None where there is no such bound.
    """

    help: str
    unit: str = "N"
    least: float | None = None
    above: float | None = None
    most: float | None = None

    @property
    def valid(self) -> str:
        """What to give."""
        low = f"more than {self.above:,g}" if self.above is not None else f"{self.least or 0:,g}"
        if self.most is None:
            return low if self.above is not None else f"{low} or more"
        return f"{low}, at most {self.most:,}" if self.above is not None else f"{low} to {self.most:,}"

    def check(self, name: str, value: Any, *, whole: bool) -> None:
        """Raise InputError for a value that is out of bounds, or not whole where it has to be."""
        if whole and (not isinstance(value, int) or isinstance(value, bool)):
            raise InputError(f"{name} is {value}; give a whole number.")
        low = value > self.above if self.above is not None else value >= (self.least or 0)
        if not low or not (self.most is None or value <= self.most):
            unit = {"MS": " milliseconds", "SECONDS": " seconds"}.get(self.unit, "")
            raise InputError(f"{name} is {value:g}; give {self.valid}{unit}.")


def limit(default: Any, help: str, unit: str = "N", **bounds: float) -> Any:
    """Return a dataclass field with a :class:`Limit`."""
    return field(default=default, metadata={LIMIT: Limit(help, unit, **bounds)})


def seconds(default: float, help: str) -> Any:
    """Return the field of a time that has to pass and to end."""
    return limit(default, help, "SECONDS", above=0, most=LONGEST)


@dataclass(frozen=True)
class Limits:
    """The limits of a service that do not depend on how it is reached: they hold in each process that serves.

    Attributes:
        max_batch: Images in one run; None is what the engine takes at most, or 32.
        max_delay_ms, max_queue, workers, run_timeout: As for each model's :class:`~evovit_deploy.serve.Batcher`.
        timeout: Seconds until a request is answered with 504; a client may ask for less.
        body_timeout: Seconds that a client has to send its request, and to take its answer.
        max_request_mib: Size of a request, also once decompressed, MiB.
        max_body_mib: Memory that the bodies of all requests may take together, MiB; at least one of ``max_request_mib`` fits.
        max_pixels: Width times height of an image for ``/v1/classify``, before it is decoded.
        max_concurrent: Requests at work at once; more are refused with 503.
        drain: Seconds that accepted requests have to end after SIGTERM.

    Raises:
        InputError: A value out of its bounds.
    """

    max_batch: int | None = limit(None, "Images per batch. Default: as many as the model takes, or 32.", least=1)
    max_delay_ms: float = limit(0.0, "How long a request may wait for a fuller batch.", "MS", least=0, most=60_000)
    max_queue: int = limit(256, "Images that may wait; beyond, requests get 503.", least=1)
    workers: int = limit(1, "Batches run at once; 2 helps on a GPU.", least=1)
    run_timeout: float = seconds(60.0, "When a run of the engine counts as hung.")
    timeout: float = seconds(30.0, "When a request gets 504.")
    body_timeout: float = seconds(30.0, "How long a request may take to arrive.")
    max_request_mib: int = limit(64, "Largest request.", "MIB", least=1)
    max_body_mib: int = limit(256, "Memory for all requests together.", "MIB", least=1)
    max_pixels: int = limit(50_000_000, "Pixels of an image for /v1/classify.", least=1)
    max_concurrent: int = limit(512, "Requests at work at once; beyond, 503.", least=1)
    drain: float = limit(30.0, "Time for accepted requests after SIGTERM.", "SECONDS", least=0, most=LONGEST)

    def __post_init__(self) -> None:
        check_limits(self)


def check_limits(options: Any) -> None:
    """Raise InputError for the first value of a dataclass that is out of the bounds of its limit."""
    for each in fields(options):
        value, optional = getattr(options, each.name), "None" in str(each.type)
        if LIMIT in each.metadata and not (optional and value is None):
            each.metadata[LIMIT].check(each.name, value, whole="int" in str(each.type))


def about(name: str, options: type = Limits) -> Limit:
    """Return what a limit of a dataclass is."""
    found: Limit = next(each for each in fields(options) if each.name == name).metadata[LIMIT]
    return found


def same(name: str) -> Any:
    """Return a dataclass field that is a limit of :class:`Limits`, for options that have only some of them."""
    [found] = (each for each in fields(Limits) if each.name == name)
    assert found.default is not MISSING
    return field(default=found.default, metadata=found.metadata)
