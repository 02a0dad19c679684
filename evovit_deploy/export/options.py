"""How a checkpoint is exported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.options import ModelOptions
from ..models.outputs import check_outputs
from .graph import ATTENTION_OPSET, BF16_OPSET, DEFAULT_OPSET, AttentionForm

if TYPE_CHECKING:
    from ..recipes import Recipe

__all__ = ["ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """How to export; the defaults suit most services.

    Attributes:
        model: Precision, input type, selection pattern, outputs, folding.
        batch: Static batch size; None is a dynamic batch from 1.
        opset: ONNX opset, 18 to 23; None is 20, 22 for BF16 (the first in which Conv takes it), or 23 for the operator Attention.
        prove: Compare the exported file with the FP32 PyTorch module before keeping it.
        islands: What computes in FP32 within a half-precision export: names of nodes or modules (``blocks.3/attn``), or ``auto``:
            nothing where FP16 passes, else exact scaling and the smallest set of nodes that makes it pass.
        attention: ``plain``, MatMul-Softmax-MatMul, which TensorRT fuses; or ``operator``, one node `Attention` of opset 23,
            which ONNX Runtime's CUDA provider fuses (docs/graph.md).
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    batch: int | None = None
    opset: int | None = None
    prove: bool = True
    islands: str | tuple[str, ...] = ()
    attention: AttentionForm = "plain"

    def __post_init__(self) -> None:
        if isinstance(self.islands, str) and self.islands != "auto":
            raise InputError(f"islands {self.islands!r}; give 'auto' or a tuple of names.")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch {self.batch} is impossible; give a number from 1, or `dynamic`.")
        if self.attention not in ("plain", "operator"):
            raise InputError(f"attention {self.attention!r} is unknown; valid: plain, operator.")
        if self.attention == "operator" and self.opset is not None and self.opset < ATTENTION_OPSET:
            raise InputError(
                f"attention operator needs opset {ATTENTION_OPSET}, the first with the operator Attention, and opset "
                f"{self.opset} was asked for. Leave --opset out, or --attention."
            )
        check_outputs(self.model.outputs)

    def check_attention(self, recipe: Recipe) -> None:
        """Raise if a model of this recipe cannot have the attention that is asked for.

        Raises:
            InputError: It has a bias, or heads of two widths.
        """
        from ..models.families import evolves, family_of

        family = family_of(recipe)
        row = family if evolves(recipe) else family.vanilla
        if self.attention == "operator" and row.no_operator:
            raise InputError(f"attention operator is not for {row.label}: {row.no_operator}. Leave --attention out.")

    @property
    def opset_version(self) -> int:
        """The opset used."""
        if self.attention == "operator":
            return self.opset or ATTENTION_OPSET
        return self.opset or (BF16_OPSET if self.model.precision == "bf16" else DEFAULT_OPSET)
