"""Evo-LeViT: from the authors' parameter names to the inference module."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...recipes import Recipe
from ...recipes.levit import LevitEvolution, LevitStructure
from ..options import DTYPES, ModelOptions
from .folding import Model, fold
from .levit import EvoLevit

__all__ = ["build_evo_levit", "finish_levit", "rename", "tradeoffs"]


def block_numbers(structure: LevitStructure) -> dict[int, str]:
    """The authors' number of each entry of ``blocks`` -> our module: a block, a subsampling attention, or its MLP."""
    names: list[str] = []
    block = 0
    for stage, depth in enumerate(structure.depths):
        if stage:
            names += [f"subsamples.{stage - 1}", f"subsamples.{stage - 1}.mlp"]
        names += [f"blocks.{i}" for i in range(block, block + depth)]
        block += depth
    return dict(enumerate(names))


def tradeoffs(state: Mapping[str, Tensor], structure: LevitStructure) -> list[float]:
    """Compute t = sigmoid(learn_tradeoff) of every attention, in the order they run."""
    keys = [
        f"blocks.{i}.m1.m.learn_tradeoff" if name.startswith("blocks") else f"blocks.{i}.learn_tradeoff"
        for i, name in block_numbers(structure).items()
        if not name.endswith("mlp")
    ]
    return [float(state[key].double().sigmoid()) for key in keys]


def rename(state: Mapping[str, Tensor], structure: LevitStructure) -> dict[str, Tensor]:
    """Rename the authors' parameters to ours.

    Args:
        state: Evo-LeViT state dict in the authors' names, one copy of the blocks, training-only heads already dropped.
        structure: Its sizes.
    """
    numbers = block_numbers(structure)
    layers = {"0": "fc1", "2": "fc2"}  # of the authors' sequential MLPs
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        part = key.split(".")
        if part[-1] == "learn_tradeoff":
            continue
        leaf = f"{'norm' if part[-2:-1] == ['bn'] else 'linear'}.{part[-1]}"
        if part[0] == "patch_embed":  # patch_embed.2.c.weight
            renamed[f"patch_embed.{part[1]}.{leaf.replace('linear', 'conv')}"] = tensor
        elif part[0] in ("head", "head_dist"):
            renamed[f"heads.{int(part[0] == 'head_dist')}.{leaf}"] = tensor
        elif key in ("cls_token", "poss"):
            renamed[key.replace("poss", "pos_embed")] = tensor
        else:
            name = numbers[int(part[1])]
            inner = part[2:-2]
            if part[-1] == "poss":  # blocks.2.poss
                renamed[f"positions.{name.split('.')[1]}"] = tensor
            elif inner[0] == "m2" or inner[0] == "m":  # blocks.0.m2.m.0.c.weight, blocks.3.m.0.c.weight
                owner = f"{name}.mlp" if inner[0] == "m2" else name
                renamed[f"{owner}.{layers[inner[-1]]}.{leaf}"] = tensor
            elif inner[0] == "m1":  # blocks.0.m1.m.qkv.c.weight, blocks.0.m1.m.proj.1.c.weight
                renamed[f"{name}.attn.{inner[2]}.{leaf}"] = tensor
            else:  # blocks.2.kv.c.weight, blocks.2.q.1.c.weight
                renamed[f"{name}.{inner[0]}.{leaf}"] = tensor
    return renamed


def build_evo_levit(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> EvoLevit:
    """Return the inference module, in eval mode, on the CPU; see :attr:`.Family.build`."""
    structure, evolution = recipe.parts(LevitStructure, LevitEvolution)
    model = EvoLevit(
        structure,
        evolution,
        tradeoffs(state, structure),
        pattern=options.selection,
        transform=recipe.transform,
        image_input=options.image_input,
        outputs=options.outputs,
        trim=options.trim,
    )
    return finish_levit(model, rename(state, structure), options)


def finish_levit(model: Model, state: Mapping[str, Tensor], options: ModelOptions) -> Model:
    """Load FP32 parameters, fold, convert and freeze an :class:`.EvoLevit` or :class:`.VanillaLevit`."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]  # of training only
    assert not missing, missing
    assert not unexpected, unexpected
    model = fold(model.eval()) if options.fold else model.eval()
    return model.requires_grad_(False).to(DTYPES[options.precision])
