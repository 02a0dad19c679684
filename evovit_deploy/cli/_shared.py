"""Groups of options that several commands share, and what the library makes of each. See :mod:`._groups`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _options as shared
from ._values import amounts, ratios, word

if TYPE_CHECKING:
    from ..checkpoint.options import CheckpointOptions
    from ..engines.opening import OpenOptions

__all__ = ["Building", "Opened", "Ran", "Understood"]


@dataclass(frozen=True)
class Understood:
    """How a checkpoint is understood."""

    recipe: shared.Recipe = None
    keep: shared.Keep = None
    r: shared.R = None
    schedule: shared.Schedule = None
    num_heads: shared.NumHeads = None
    ema: shared.Ema = False
    from_timm: shared.FromTimm = None
    method: shared.Method = None

    def options(self, **more: Any) -> CheckpointOptions:
        """Return them as the library takes them, with what a command has besides."""
        from ..checkpoint.options import CheckpointOptions

        keep = None if self.keep is None else ratios("--keep", self.keep, "0.7,0.5")
        r = None if self.r is None else amounts("--r", self.r)
        return CheckpointOptions(
            self.recipe, keep, self.schedule, self.num_heads, ema=self.ema,
            from_timm=self.from_timm, method=self.method, r=r, **more,
        )  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """Where a model runs."""

    provider: shared.Provider = "auto"
    threads: shared.Threads = None


@dataclass(frozen=True)
class Opened(Understood, Ran):  # the fields of the last come first
    """How a model is opened to look at its answers."""

    def opening(self) -> OpenOptions:
        """Return them as the library takes them."""
        from ..engines.opening import OpenOptions

        return OpenOptions(self.provider, self.threads, self.options())


@dataclass(frozen=True)
class Building:
    """What is asked of an engine that is built of an export."""

    target: shared.ExportTarget = None
    device: shared.Device = None
    profile: shared.Profile = None
    min_batch: shared.MinBatch = None
    opt_batch: shared.OptBatch = None
    max_batch: shared.MaxBatch = None
    require_fused_attention: shared.RequireFusedAttention = False
    max_kernels: shared.MaxKernels = None

    def fields(self) -> dict[str, Any]:
        """Return what overrules a profile, under the names of the library; None was not given."""
        return {
            "target": word(self.target),
            "min_batch": self.min_batch,
            "opt_batch": self.opt_batch,
            "max_batch": self.max_batch,
            "require_fused_attention": self.require_fused_attention or None,
            "max_kernels": self.max_kernels,
        }
