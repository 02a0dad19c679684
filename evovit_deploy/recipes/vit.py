"""Structure of a class-token vision transformer: Evo-DeiT, its vanilla twin, and what timm calls `VisionTransformer`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import RecipeError
from .bounds import MOST, MOST_CLASSES, number, whole

__all__ = ["Activation", "Pool", "Structure"]

Pool = Literal["patches", "normed_patches", "cls", "cls_dist"]
Activation = Literal["gelu", "quick_gelu", "swiglu"]


@dataclass(frozen=True)
class Structure:
    """Sizes of the network; the tensors of a checkpoint overrule them.

    Tokens are the class token, then the registers, then the patches. From ``pool`` on, the defaults are those of Evo-DeiT.

    Attributes:
        image_size, patch_size: Pixels per side.
        embed_dim, depth, num_heads: C, blocks, H.
        mlp_ratio: Rows of an MLP's first layer, relative to C (`swiglu` halves them).
        num_classes: Classes; without a head C, the width of the features.
        pool: What is classified: ``patches`` the mean of the patch tokens, ``normed_patches`` the mean of their norm, ``cls``
            the class token, ``cls_dist`` class and distillation token, whose logits are averaged.
        registers: Tokens beside class token and patches. They take part in every block, without a score. A distillation
            token is one of them.
        activation: Of the MLP.
        norm_eps: Of every LayerNorm.
        pre_norm: Whether there is a LayerNorm before the first block (CLIP).
        head: Whether there is a classifier; without one the output is the pooled, normed feature.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    pool: Pool = "patches"
    registers: int = 0
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    pre_norm: bool = False
    head: bool = True

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes"):
            whole(f"structure.{name}", getattr(self, name), most=MOST_CLASSES if name == "num_classes" else MOST)
        number("structure.mlp_ratio", self.mlp_ratio, 0, 1024, above=True)
        if self.image_size % self.patch_size:
            raise RecipeError(
                f"structure.image_size {self.image_size} is not a multiple of structure.patch_size {self.patch_size}."
            )
        if self.embed_dim % self.num_heads:
            raise RecipeError(
                f"structure.embed_dim {self.embed_dim} is not a multiple of structure.num_heads {self.num_heads}."
            )
        for name, valid in (("pool", get_args(Pool)), ("activation", get_args(Activation))):
            if getattr(self, name) not in valid:
                raise RecipeError(f"structure.{name} is {getattr(self, name)!r}; valid: {', '.join(valid)}.")
        for name in ("pre_norm", "head"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(f"structure.{name} is {getattr(self, name)!r}; valid: true, false.")
        least = int(self.pool == "cls_dist")
        whole("structure.registers", self.registers, least=least, why=f"pool is {self.pool!r}")
        number("structure.norm_eps", self.norm_eps, 0, 1, above=True)
        if not self.head and (self.pool == "cls_dist" or self.num_classes != self.embed_dim):
            raise RecipeError(
                f"structure.num_classes is {self.num_classes} and structure.pool {self.pool!r}; without a head the output is "
                f"one feature of {self.embed_dim} channels, the embed dim."
            )

    @property
    def num_patches(self) -> int:
        """N, the number of patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prefix_tokens(self) -> int:
        """P, the tokens before the patches: class token and registers."""
        return 1 + self.registers

    @property
    def classified(self) -> int:
        """How many of the first tokens the head reads; 0 when it reads the patches."""
        return {"cls": 1, "cls_dist": 2}.get(self.pool, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, without what is as in Evo-DeiT: its recipes read and hash as they did before there was
        more.
        """
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        optional = list(fields)[list(fields).index("pool") :]
        document = dataclasses.asdict(self)
        return {key: value for key, value in document.items() if key not in optional or value != fields[key]}
