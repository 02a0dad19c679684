"""The vanilla twin: timm's DeiT, ViT or LeViT of the same size, so that a speedup is the method's and not a weak baseline's.

`twin` runs timm's weights through our code (`vit.py`, `vanilla_levit.py`) with the same folding; `stock` is the module as timm
ships it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError, RecipeError
from ...recipes import LEVIT, VIT, Evolution, LevitEvolution, Recipe, Structure, baseline_names, load_recipe
from ...recipes.vit import Pool
from ...suggest import did_you_mean
from ..levit.evo_levit import finish_levit
from ..levit.vanilla import VanillaLevit, timm_levit
from ..levit.vanilla import to_module_state as levit_state
from ..options import DTYPES, ModelOptions
from .evo_deit import build_vit
from .timm_vit import timm_name, timm_vit, to_module_state
from .vit import VisionTransformer

__all__ = ["Stock", "baseline_names", "build_stock", "build_twin", "timm_deit", "timm_model", "vanilla_recipe"]


def vanilla_recipe(source: str | Recipe) -> Recipe:
    """Return the recipe of a vanilla DeiT or LeViT: of a name such as ``deit_small_patch16_224`` or ``levit_128s_224``, or the
    twin of an Evo recipe (of one for a timm ViT, that ViT).

    Raises:
        RecipeError: A name that is not a baseline of a shipped recipe.
    """
    if isinstance(source, str):
        if source not in baseline_names():
            hint = did_you_mean(source, baseline_names())
            raise RecipeError(
                f"no baseline called {source!r}; valid: {', '.join(baseline_names())}.{hint} Any other ViT of timm: "
                "--from-timm NAME --baseline-kind twin."
            )
        recipe = load_recipe(f"evo_{source}")
    else:
        recipe = source
    evolution: Evolution | LevitEvolution
    if recipe.family in LEVIT:
        evolution = recipe.as_levit[1].with_keep((1.0,))
    else:
        depth = recipe.as_deit[0].depth
        evolution = Evolution(keep_ratios=(1.0,) * depth, tradeoff=(1.0,) * depth, stage_starts=())
    return dataclasses.replace(
        recipe,
        name=timm_name(recipe) if recipe.family in VIT else recipe.baseline or f"{recipe.name}_vanilla",
        family={"evo_levit": "levit", "evo_deit": "deit", "evo_vit": "vit"}.get(recipe.family, recipe.family),
        baseline="",
        evolution=evolution,
    )


def timm_model(recipe: Recipe, seed: int = 0) -> nn.Module:
    """Return timm's module for a vanilla recipe, with seeded random weights."""
    if recipe.family == "levit":
        return timm_levit(recipe.as_levit[0], seed)
    if recipe.family == "vit":
        return timm_vit(recipe, seed)
    return timm_deit(recipe.as_deit[0], seed)


def timm_deit(structure: Structure, seed: int = 0) -> nn.Module:
    """Return timm's VisionTransformer with DeiT's settings and seeded random weights."""
    from timm.models.vision_transformer import VisionTransformer as TimmVit

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TimmVit(
            img_size=structure.image_size,
            patch_size=structure.patch_size,
            embed_dim=structure.embed_dim,
            depth=structure.depth,
            num_heads=structure.num_heads,
            mlp_ratio=structure.mlp_ratio,
            num_classes=structure.num_classes,
        )
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def build_twin(
    recipe: Recipe, options: ModelOptions, seed: int = 0, state: Mapping[str, Tensor] | None = None
) -> VisionTransformer | VanillaLevit:
    """Return timm's DeiT, ViT or LeViT in our inference code, folded and typed like the model it is compared with.

    Args:
        recipe: A vanilla recipe, see :func:`vanilla_recipe`.
        options: As for the model it is the twin of; ``kept`` is not among a vanilla model's outputs.
        seed: Of timm's random initialisation.
        state: Weights in timm's names, in place of random ones.
    """
    if "kept" in options.outputs:
        raise InputError("a vanilla model keeps every token; leave `kept` out of --outputs.")
    state = timm_model(recipe, seed).state_dict() if state is None else state
    if recipe.family == "levit":
        levit = VanillaLevit(
            recipe.as_levit[0],
            transform=recipe.transform,
            image_input=options.image_input,
            outputs=options.outputs,
            trim=options.trim,
        )
        return finish_levit(levit, levit_state(state, recipe.as_levit[0]), options)
    pool: Pool | None = "cls" if recipe.family == "deit" else None
    return build_vit(recipe, to_module_state(state, recipe.as_deit[0]), options, pool)


class Stock(nn.Module):
    """A timm model as it ships, with our input and output conventions around it."""

    def __init__(self, model: nn.Module, recipe: Recipe, options: ModelOptions) -> None:
        super().__init__()
        self.dtype = DTYPES[options.precision]
        self.model, self.image_input, self.outputs = model.to(self.dtype), options.image_input, options.outputs
        self.structure = recipe.structure
        self.register_buffer("mean", 255 * torch.tensor(recipe.transform.mean).to(self.dtype))
        self.register_buffer("std", 255 * torch.tensor(recipe.transform.std).to(self.dtype))

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names."""
        return self.outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Same inputs and outputs as :class:`~.vit.VisionTransformer`."""
        x: Any = images.to(self.dtype)
        if self.image_input == "uint8":
            x = ((x - self.mean) / self.std).permute(0, 3, 1, 2)
        logits = self.model(x).float()
        results = {"logits": logits}
        if "probabilities" in self.outputs:
            results["probabilities"] = logits.softmax(-1)
        return tuple(results[name] for name in self.outputs)


def build_stock(
    recipe: Recipe, options: ModelOptions, seed: int = 0, state: Mapping[str, Tensor] | None = None
) -> Stock:
    """Return timm's module exactly as timm ships it (unfolded, scale at run time); arguments as for :func:`build_twin`."""
    if "kept" in options.outputs:
        raise InputError("a vanilla model keeps every token; leave `kept` out of --outputs.")
    model = timm_model(recipe, seed)
    if state is not None:
        model.load_state_dict(dict(state))
    return Stock(model, recipe, options).eval()
