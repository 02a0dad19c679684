"""What is looked at, in which order: a job for each model and backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..bench.settings import Settings
from ..engines.registry import names
from ..errors import InputError
from ..recipes import load_recipe, recipe_names
from ..suggest import did_you_mean

__all__ = ["MEASURED", "MODELS", "CheckJob", "CheckOptions", "jobs"]

MEASURED = "evo_deit_small_patch16_224"
# The one that is measured first, so that little time left still leaves the most useful answers.
MODELS = (MEASURED, "evo_deit_tiny_patch16_224", "evo_levit_256_224", "evo_deit_base_patch16_224")


@dataclass(frozen=True)
class CheckOptions:
    """What to look at, and for how long.

    Attributes:
        device: ``cuda``, or ``cpu`` to try the same without a GPU.
        models: Recipes, which get random weights; the first is measured too.
        backends: Names; empty is every one.
        precision: Of the models; None is FP16 on a GPU and FP32 on a CPU.
        minutes: All in all; what is not reached is said to be left out.
        batches: Batch sizes that are measured; empty is 1, 8, 64, 256 on a GPU and 1, 8 on a CPU.
        seconds: Each model is measured for at least this long at each batch size.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    models: tuple[str, ...] = MODELS
    backends: tuple[str, ...] = ()
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    minutes: float = 8.0
    batches: tuple[int, ...] = ()
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("no model to check; give at least one recipe.")
        for name in self.models:
            if name not in recipe_names() and not name.endswith(".toml"):
                raise InputError(
                    f"model {name!r} is no recipe; gpu-check takes recipes, with random weights: a name of `evovit list recipes` "
                    f"or a TOML file.{did_you_mean(name, recipe_names())}"
                )
            load_recipe(name)
        known = [name for name in names() if name != "auto"]
        for name in self.backends:
            if name not in known:
                raise InputError(
                    f"backend {name!r} is unknown; valid: all, {', '.join(known)}.{did_you_mean(name, known)}"
                )
        if not 0 < self.minutes <= 24 * 60:
            raise InputError(f"{self.minutes:g} minutes; give more than 0, at most 1440.")
        if not 0 < self.seconds <= 600:
            raise InputError(f"{self.seconds:g} seconds; give more than 0, at most 600.")
        Settings(self.measured_batches)

    @property
    def of_precision(self) -> str:
        """The precision in force."""
        return self.precision or ("fp16" if self.device == "cuda" else "fp32")

    @property
    def measured_batches(self) -> tuple[int, ...]:
        """The batch sizes in force."""
        return self.batches or ((1, 8, 64, 256) if self.device == "cuda" else (1, 8))


@dataclass(frozen=True)
class CheckJob:
    """One model on one backend, in a process of its own.

    Attributes:
        what: ``check`` whether it computes the right thing, or ``measure`` how fast it is.
        model: Recipe.
        backend: Name of the row.
        device, precision, batches, seconds: As of the options.
    """

    what: Literal["check", "measure"]
    model: str
    backend: str
    device: str
    precision: str
    batches: tuple[int, ...]
    seconds: float

    @property
    def title(self) -> str:
        """For people."""
        return f"{'checking' if self.what == 'check' else 'measuring'} {self.model}, {self.backend}"


def jobs(options: CheckOptions, here: Sequence[str]) -> list[CheckJob]:
    """Return what is looked at: every check of the first model, its measurements, then the other models.

    Args:
        options: What was asked for.
        here: Backends that work, from :func:`.registry.for_checkpoints`.
    """
    first, *rest = options.models
    order = [("check", first), ("measure", first), *(("check", model) for model in rest)]
    return [
        CheckJob(what, model, name, options.device, options.of_precision, options.measured_batches, options.seconds)  # type: ignore[arg-type]
        for what, model in order
        for name in here
    ]
