"""The vanilla twin: timm's DeiT, ViT or LeViT of the same size, so that a speedup is the method's and not a weak baseline's.

`twin` runs timm's weights through our code with the same folding; `stock` is the module as timm ships it. What both are, the
family says (:class:`.families.Vanilla`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..classes.output_names import block_of, is_feature
from ..errors import RecipeError
from ..recipes import Recipe, baselines, load_recipe
from ..suggest import did_you_mean
from .families import family_of
from .options import DTYPES, ModelOptions
from .outputs import kind_of, refuse_norm_blocks

__all__ = ["Stock", "build_stock", "build_twin", "stock_model", "vanilla_recipe"]


def vanilla_recipe(source: str | Recipe) -> Recipe:
    """Return the recipe of a vanilla DeiT or LeViT: of a name such as ``deit_small_patch16_224`` or ``levit_128s_224``, or the
    twin of an Evo recipe (of one for a timm ViT, that ViT).

    Raises:
        RecipeError: A name that is not a baseline of a shipped recipe.
    """
    if isinstance(source, str):
        known = baselines()
        if source not in known:
            hint = did_you_mean(source, known)
            raise RecipeError(
                f"no baseline called {source!r}; valid: {', '.join(known)}.{hint} Any other ViT of timm: "
                "--from-timm NAME --baseline-kind twin."
            )
        source = load_recipe(known[source])
    return family_of(source).vanilla.recipe(source)


def stock_model(recipe: Recipe, seed: int = 0) -> nn.Module:
    """Return the module of a vanilla recipe as timm ships it, in eval mode, with seeded random weights."""
    return family_of(recipe).vanilla.stock(recipe, seed)


def build_twin(
    recipe: Recipe, options: ModelOptions, seed: int = 0, state: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Return timm's DeiT, ViT or LeViT in our inference code, folded and typed like the model it is compared with.

    Args:
        recipe: A vanilla recipe, see :func:`vanilla_recipe`.
        options: As for the model it is the twin of; ``kept`` is not among a vanilla model's outputs.
        seed: Of timm's random initialisation.
        state: Weights in timm's names, in place of random ones.
    """
    options = family_of(recipe).settled(options, recipe)
    state = stock_model(recipe, seed).state_dict() if state is None else state
    return family_of(recipe).vanilla.twin(recipe, state, options)


class Stock(nn.Module):
    """A timm model as it ships, with our input and output conventions around it."""

    def __init__(self, model: nn.Module, recipe: Recipe, options: ModelOptions) -> None:
        super().__init__()
        self.dtype = DTYPES[options.precision]
        self.model, self.image_input, self.outputs = model.to(self.dtype), options.image_input, options.outputs
        self.structure = recipe.structure
        self.blocks = {number for name in self.outputs if (number := block_of(name)) is not None}
        if isinstance(getattr(model, "norm", None), nn.Identity):
            refuse_norm_blocks(self.outputs)
        self.register_buffer("mean", 255 * torch.tensor(recipe.transform.mean).to(self.dtype))
        self.register_buffer("std", 255 * torch.tensor(recipe.transform.std).to(self.dtype))

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names."""
        return self.outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Same inputs and outputs as :class:`~.vit.vit.VisionTransformer`."""
        x: Any = images.to(self.dtype)
        if self.image_input == "uint8":
            x = ((x - self.mean) / self.std).permute(0, 3, 1, 2)
        if any(map(is_feature, self.outputs)):
            return self.with_features(x)
        logits = self.model(x).float()
        results = {"logits": logits}
        if "probabilities" in self.outputs:
            results["probabilities"] = logits.softmax(-1)
        return tuple(results[name] for name in self.outputs)

    def with_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what timm's ``forward_intermediates``, ``forward_features`` and ``forward_head`` give, by their names here."""
        model: Any = self.model
        wanted, prefix = sorted(self.blocks), self.structure.prefix_tokens
        states: list[Tensor] = []
        if wanted:
            final, states = model.forward_intermediates(x, indices=wanted, output_fmt="NLC")
        else:
            final = model.forward_features(x)
        after = dict(zip(wanted, states))
        given: dict[str, Callable[[], Tensor]] = {
            "logits": lambda: model.forward_head(final),
            "probabilities": lambda: model.forward_head(final).float().softmax(-1),
            "embedding": lambda: model.forward_head(final, pre_logits=True),
            "class_token": lambda: final[:, 0],
            "patch_tokens": lambda: final[:, prefix:],
        }
        results = []
        for name in self.outputs:
            number = block_of(name)
            if number is None:
                results.append(given[name]().float())
            else:
                state = after[number]
                results.append((model.norm(state) if kind_of(name) == "norm_blocks" else state).float())
        return tuple(results)


def build_stock(
    recipe: Recipe, options: ModelOptions, seed: int = 0, state: Mapping[str, Tensor] | None = None
) -> Stock:
    """Return timm's module exactly as timm ships it (unfolded, scale at run time); arguments as for :func:`build_twin`."""
    options = family_of(recipe).settled(options, recipe)
    model = stock_model(recipe, seed)
    if state is not None:
        model.load_state_dict(dict(state))
    return Stock(model, recipe, options).eval()
