"""A family of nothing but a stem, a mean and a linear layer: what is the least that a family has to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evovit_deploy.errors import RecipeError
from evovit_deploy.models.checks import check_tensors, shape_of
from evovit_deploy.models.families import Family, Loaded, Source, Vanilla
from evovit_deploy.models.options import DTYPES, ModelOptions
from evovit_deploy.recipes import Recipe
from evovit_deploy.recipes.forms import Form

__all__ = ["TOY"]


@dataclass(frozen=True)
class Sizes:
    image_size: int
    patch_size: int
    width: int
    num_classes: int

    prefix_tokens = 0
    head = True

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Corner:
    """Of the patches only the first ones are averaged."""

    keep_ratios: tuple[float, ...] = (0.5,)

    schedules = ("stage",)

    @property
    def stage_ratios(self) -> tuple[float, ...]:
        return self.keep_ratios

    left_out = ""

    def with_keep(self, ratios: tuple[float, ...]) -> Corner:
        return Corner(ratios)

    def with_schedule(self, schedule: str) -> Corner:
        return self

    def check(self, structure: Sizes) -> None:
        if len(self.keep_ratios) != 1:
            raise RecipeError("a toy has one keep ratio")

    def facts(self) -> dict[str, Any]:
        return {"keep ratios": self.keep_ratios}


class Module(nn.Module):
    def __init__(self, recipe: Recipe, options: ModelOptions) -> None:
        super().__init__()
        self.structure, _ = recipe.parts(Sizes, Corner)
        self.image_input, self.output_names = options.image_input, options.outputs
        patches = (self.structure.image_size // self.structure.patch_size) ** 2
        self.keep = int(patches * recipe.evolution.keep_ratios[0])
        s = self.structure
        self.embed = nn.Conv2d(3, s.width, s.patch_size, s.patch_size)
        self.head = nn.Linear(s.width, s.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        tokens = self.embed(images.to(self.embed.weight.dtype)).flatten(2).transpose(1, 2)
        logits = self.head(tokens[:, : self.keep].mean(1)).float()
        given = {"logits": logits, "probabilities": logits.softmax(-1)}
        return tuple(given[name] for name in self.output_names)


def shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    return {
        "toy.stem.weight": (s.width, 3, s.patch_size, s.patch_size),
        "toy.stem.bias": (s.width,),
        "toy.out.weight": (s.num_classes, s.width),
        "toy.out.bias": (s.num_classes,),
    }


def recognise(source: Source) -> bool:
    return "toy.stem.weight" in source.state


def load(source: Source) -> Loaded:
    width, _, patch, _ = shape_of(source.state, "toy.stem.weight", (None, 3, None, None), "a toy", source.where)
    classes, _ = shape_of(source.state, "toy.out.weight", (None, width), "a toy", source.where)
    sizes = Sizes(source.image_size or 8 * patch, patch, width, classes)
    recipe = source.recipe or Recipe(f"toy_{width}", "toy", sizes, Corner())
    weights = check_tensors(source.state, shapes(sizes), "a toy", source.where)
    return Loaded(dataclasses.replace(recipe, structure=sizes), weights, [])


def random(recipe: Recipe, seed: int) -> Loaded:
    generator = torch.Generator().manual_seed(seed)
    sizes, _ = recipe.parts(Sizes, Corner)
    return Loaded(recipe, {k: torch.randn(v, generator=generator) for k, v in shapes(sizes).items()}, [])


def build(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    module = Module(recipe, options)
    names = {"toy.stem": "embed", "toy.out": "head"}
    module.load_state_dict({f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in state.items()})
    return module.eval().requires_grad_(False).to(DTYPES[options.precision])


class Stock(nn.Module):
    """What stands for a library's own module: images to logits."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, sizes.width, sizes.patch_size, sizes.patch_size)
        self.linear = nn.Linear(sizes.width, sizes.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv(images).mean((2, 3)))  # type: ignore[no-any-return]


def vanilla_recipe(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, name="toy_plain_net", family="toy_plain", evolution=Corner((1.0,)))


def stock(recipe: Recipe, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Stock(recipe.parts(Sizes, Corner)[0]).eval().requires_grad_(False)


def twin(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    return build(
        recipe, {k.replace("conv", "toy.stem").replace("linear", "toy.out"): v for k, v in state.items()}, options
    )


def sizes(recipe: Recipe) -> dict[str, Any]:
    s, _ = recipe.parts(Sizes, Corner)
    known = {"size": None, "num_patches": (s.image_size // s.patch_size) ** 2, "embed_dim": s.width}
    return {**known, "num_heads": 0, "depth": 0, "mlp_ratio": 0.0, **s.to_dict()}


def schedule(recipe: Recipe) -> dict[str, Any]:
    return {"schedule": "stage", "keep_ratios": list(recipe.evolution.keep_ratios), "tradeoff": None, "groups": []}


FORM = Form(Sizes, Corner)
TOY = Family(
    name="toy",
    label="Toy",
    form=FORM,
    vanilla=Vanilla("toy_plain", "Plain toy", FORM, vanilla_recipe, stock, twin),
    recognise=recognise,
    load=load,
    random=random,
    build=build,
    grids=lambda recipe: (),
    sizes=sizes,
    schedule=schedule,
    outputs=("logits", "probabilities"),
    precisions=("fp32", "fp16"),
)
