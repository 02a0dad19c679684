"""Vanilla LeViT from timm in the layers of Evo-LeViT: no class token, an attention bias, nothing selected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ...recipes import Transform
from ...recipes.levit import LevitStructure
from ..vit.layers import Step
from .layers import VALUE_RATIO, Block, Head, Subsample, average, stem
from .levit import Pixels

__all__ = ["VanillaLevit", "rename", "timm_levit"]


class VanillaLevit(nn.Module):
    """LeViT for inference; arguments and outputs as for :class:`.EvoLevit`.

    Args:
        structure: Sizes.
        transform: Needed for uint8 input only.
        image_input: ``float32`` or ``uint8``.
        outputs: Any of ``logits``, ``probabilities``, ``embedding``.
        trim: Let the last fc2 commute with the mean.
    """

    def __init__(
        self,
        structure: LevitStructure,
        *,
        transform: Transform | None = None,
        image_input: Literal["float32", "uint8"] = "float32",
        outputs: tuple[str, ...] = ("logits",),
        trim: bool = True,
    ) -> None:
        super().__init__()
        self.structure, self.image_input, self.outputs, self.trim = structure, image_input, outputs, trim
        dims, key_dim, grids = structure.embed_dims, structure.key_dim, structure.grids
        hidden = [round(dim * structure.mlp_ratio) for dim in dims]
        sizes = list(zip(dims, structure.num_heads, hidden, structure.depths, grids))
        self.patch_embed = stem(dims[0])
        self.blocks = nn.ModuleList(
            Block(c, h, key_dim, mlp, grid * grid) for c, h, mlp, depth, grid in sizes for _ in range(depth)
        )
        self.subsamples = nn.ModuleList(
            Subsample(dims[i], dims[i + 1], key_dim, grids[i], hidden[i + 1], class_token=False)
            for i in range(len(dims) - 1)
        )
        self.heads = nn.ModuleList(Head(dims[-1], structure.num_classes) for _ in range(1 + structure.distilled))
        self.embed, self.pool_tokens = Step(), Step()
        self.pixels = Pixels(transform or Transform())

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names."""
        return self.outputs

    def fold_positions(self) -> None:
        """Do nothing: there is no position embedding that the bias of the stem could go into."""

    def tokens_of(self, images: Tensor) -> Tensor:
        """Map images -> [B, N, C] tokens."""
        if self.image_input == "uint8":
            images = self.pixels(images)
        return self.patch_embed(images.to(next(self.parameters()).dtype)).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, S, S] float32 or [B, S, S, 3] uint8 -> tuple of outputs, see :attr:`output_names`."""
        x = self.embed(self.tokens_of, images)
        ends = [sum(self.structure.depths[: i + 1]) for i in range(len(self.subsamples))]
        for i, block in enumerate(self.blocks):
            if i in ends:
                subsample = self.subsamples[ends.index(i)]
                x = subsample.mix(*subsample(x))  # type: ignore[operator]
            if i + 1 < len(self.blocks) or not self.trim:
                x, _ = block(x)
        if self.trim:
            x, _ = block.mix(x)  # type: ignore[operator]
            feature = self.pool_tokens(self.pooled, block, x)
        else:
            feature = x.float().mean(1).to(x.dtype)
        logits = average([head(feature).float() for head in self.heads])
        results = {"logits": logits, "embedding": feature.float()}
        if "probabilities" in self.outputs:
            results["probabilities"] = logits.softmax(-1)
        return tuple(results[name] for name in self.outputs)

    def pooled(self, block: Block, x: Tensor) -> Tensor:
        """Mean over the tokens of x + mlp(x), fc2 once on the mean: [B, N, C] -> [B, C]."""
        hidden = block.mlp.hidden(x).float().mean(1, keepdim=True).to(x.dtype)
        return (x.float().mean(1) + block.mlp.fc2(hidden)[:, 0].float()).to(x.dtype)


def timm_levit(structure: LevitStructure, seed: int = 0) -> nn.Module:
    """Return timm's LeViT with seeded random weights that keep the size of their inputs.

    timm begins with residual branches that BatchNorm multiplies by zero and with an attention bias of zero; a network of
    nothing proves nothing.
    """
    from timm.models.levit import Levit, LevitDistilled

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = (LevitDistilled if structure.distilled else Levit)(
            img_size=structure.image_size,
            embed_dim=structure.embed_dims,
            key_dim=structure.key_dim,
            depth=structure.depths,
            num_heads=structure.num_heads,
            attn_ratio=float(VALUE_RATIO),
            mlp_ratio=structure.mlp_ratio,
            num_classes=structure.num_classes,
        )
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "attention_biases" not in name:
                nn.init.normal_(parameter, 0, torch.Size(parameter.shape[1:]).numel() ** -0.5)
            elif "attention_biases" in name:
                nn.init.normal_(parameter, 0, 0.5)
            elif name.endswith("bn.weight"):
                nn.init.ones_(parameter)
    return model.eval().requires_grad_(False)


def rename(state: Mapping[str, Tensor], structure: LevitStructure) -> dict[str, Tensor]:
    """Rename timm's LeViT parameters to ours; the attention bias becomes a table [H, M, L], one entry a pair."""
    grids = structure.grids
    starts = [sum(structure.depths[:i]) for i in range(len(structure.depths))]
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        key = key.replace(".ln.", ".").replace(".linear.", "|linear.").replace(".bn.", "|norm.")
        name, _, leaf = key.partition("|")
        part = name.split(".")
        if part[0] == "stem":  # stem.conv1
            renamed[f"patch_embed.{2 * (int(part[1][-1]) - 1)}.{leaf.replace('linear', 'conv')}"] = tensor
        elif part[0] in ("head", "head_dist"):
            renamed[f"heads.{int(part[0] == 'head_dist')}.{leaf}"] = tensor
        elif part[2] == "downsample":  # stages.1.downsample.attn_downsample.kv, stages.1.downsample.mlp.ln1
            name, grid = f"subsamples.{int(part[1]) - 1}", grids[int(part[1]) - 1]
            if part[3] == "mlp":
                renamed[f"{name}.mlp.fc{part[4][-1]}.{leaf}"] = tensor
            elif part[4] == "attention_biases":
                renamed[f"{name}.bias"] = tensor[:, offsets(grid, 2)]
            else:
                renamed[f"{name}.{part[4]}.{leaf}"] = tensor
        else:  # stages.0.blocks.1.attn.qkv, stages.0.blocks.1.mlp.ln2
            name = f"blocks.{starts[int(part[1])] + int(part[3])}"
            if part[4] == "mlp":
                renamed[f"{name}.mlp.fc{part[5][-1]}.{leaf}"] = tensor
            elif part[5] == "attention_biases":
                renamed[f"{name}.attn.bias"] = tensor[:, offsets(grids[int(part[1])], 1)]
            else:
                renamed[f"{name}.attn.{part[5]}.{leaf}"] = tensor
    return renamed


def offsets(grid: int, stride: int) -> Tensor:
    """Return the entry of a LeViT attention bias for every pair of a query (each ``stride``-th row and column) and a key: [M,
    L].
    """
    place = torch.arange(grid * grid)
    keys = torch.stack((place // grid, place % grid), 1)
    queries = keys[(keys % stride == 0).all(1)]
    distance = (queries[:, None] - keys[None]).abs()
    return distance[..., 0] * grid + distance[..., 1]
