"""How a checkpoint is exported."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InputError
from ..models.options import ModelOptions
from ..models.outputs import check_outputs
from .graph import BF16_OPSET, DEFAULT_OPSET

__all__ = ["ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """How to export; the defaults suit most services.

    Attributes:
        model: Precision, input type, selection pattern, outputs, folding.
        batch: Static batch size; None is a dynamic batch from 1.
        opset: ONNX opset, 18 to 23; None is 20, or 22 for BF16 (the first in which Conv takes it).
        prove: Compare the exported file with the FP32 PyTorch module before keeping it.
        islands: What computes in FP32 within a half-precision export: names of nodes or modules (``blocks.3/attn``), or ``auto``:
            nothing where FP16 passes, else exact scaling and the smallest set of nodes that makes it pass.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    batch: int | None = None
    opset: int | None = None
    prove: bool = True
    islands: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.islands, str) and self.islands != "auto":
            raise InputError(f"islands {self.islands!r}; give 'auto' or a tuple of names.")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch {self.batch} is impossible; give a number from 1, or `dynamic`.")
        check_outputs(self.model.outputs)

    @property
    def opset_version(self) -> int:
        """The opset used."""
        return self.opset or (BF16_OPSET if self.model.precision == "bf16" else DEFAULT_OPSET)
