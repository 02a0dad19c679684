"""Checkpoints: any form an Evo-DeiT, Evo-LeViT or timm ViT was saved in becomes one `Checkpoint`, read safely and checked
tensor by tensor.

    checkpoint = load_checkpoint("checkpoint.pth")
    checkpoint.recipe.structure.image_size, checkpoint.notes

`reading` opens files, `finding` chooses the weights in them, `tensors` recognises and checks state dicts, `identify` chooses the
recipe; `levit` does both for Evo-LeViT, `timm` for plain ViTs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, InputError, translate
from ..models.levit.checkpoint import expected_shapes as levit_shapes
from ..models.levit.checkpoint import is_evo_levit, load_evo_levit
from ..models.vit.evo_deit_recipe import check_image_size, identify, resize_position_embedding
from ..models.vit.evo_deit_tensors import TRAINING_ONLY, Loaded, Sizes, clean, expected_shapes, measure, to_float32
from ..models.vit.timm_source import load_timm, random_timm, timm_recipe
from ..recipes import VIT, Recipe, load_recipe
from ..storage.files import sha256
from .finding import find_weights
from .reading import read_file
from .schemes import check_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Checkpoint", "load_checkpoint", "random_checkpoint", "timm_recipe"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one Evo-DeiT, Evo-LeViT or timm ViT, and the recipe they run with.

    Attributes:
        path: The file, or None for random weights.
        recipe: Structure as found in the tensors; schedule, transform and tolerances of the recipe in force.
        state: Parameter names of the authors, or of timm -> float32 tensors on the CPU; training-only heads are dropped.
        source: Where in the file the weights lie: ``model``, ``model_ema``, ``state dict``, another entry, or, of several,
            ``state dict, student`` for those under a prefix; ``random weights (seed 0)``.
        stored_dtype: Dtype in the file, e.g. ``float32``; several are joined by commas.
        sha256: Of the file, hexadecimal; None for random weights.
        random: Whether the weights were never trained, so that the outputs mean nothing.
        args: Training arguments with printable values.
        notes: What was assumed, filled in, dropped or resized.
        epoch: Last epoch trained, if the file says.
    """

    path: Path | None
    recipe: Recipe
    state: dict[str, Tensor] = field(repr=False)
    source: str
    stored_dtype: str
    sha256: str | None
    random: bool = False
    args: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    epoch: int | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters used in inference."""
        return sum(tensor.numel() for tensor in self.state.values())


def load_checkpoint(
    path: str | Path,
    *,
    recipe: str | Recipe | None = None,
    num_heads: int | None = None,
    image_size: int | None = None,
    ema: bool = False,
    timm: str | None = None,
    pool: str | None = None,
) -> Checkpoint:
    """Read a checkpoint of Evo-DeiT, Evo-LeViT or a timm ViT: `.pth` of any torch version (nothing in it is run), or
    safetensors.

    Args:
        path: The file; its content decides how it is read, not its name.
        recipe: Name or path of a recipe, or a recipe. Without one, that of the training arguments (``args.model``) or
            of the same structure, else the published schedule.
        num_heads: For an embed dim that is no multiple of 64, where no recipe says it; of Evo-LeViT, the heads of stage 1.
        image_size: Resize the position embedding to images of this many pixels a side.
        ema: Use the averaged weights (``model_ema`` and the like); without them, the raw ones, if the file has any.
        timm: Name in timm of the ViT that these are the weights of; a recipe of family ``evo_vit`` says it too.
        pool: Of a timm ViT: ``token`` or ``avg``, where it is not the model's own.

    Raises:
        CheckpointError: Unreadable, refused, another model, or tensors that are missing, misshapen or not finite.
        InputError: ``image_size`` or ``num_heads`` does not fit the model.
        RecipeError: No such recipe, or a broken one.
    """
    path = Path(path)
    where = str(path)
    given = load_recipe(recipe) if isinstance(recipe, str) else recipe
    if timm is None and given is not None and given.family in VIT:
        from ..models.vit.timm_vit import timm_name

        timm = timm_name(given)
    if timm is not None and num_heads is not None:
        raise InputError(f"--num-heads is for Evo-ViT checkpoints; {timm} says it by its name. Leave it out.")
    content = read_file(path)
    found = find_weights(content, where, ema)
    state = clean(found.state, where)
    check_names(state, where)
    args, epoch = _training(content)
    with translate(CheckpointError, f"reading the tensors of {where}", RuntimeError, MemoryError):
        if timm is not None:
            loaded = load_timm(state, timm, given, image_size, pool, where)
        elif is_evo_levit(state):
            loaded = load_evo_levit(state, recipe, num_heads, image_size, where)
        else:
            loaded = _load_evo_deit(state, args, recipe, num_heads, image_size, where)
    stored = sorted({str(state[key].dtype).removeprefix("torch.") for key in loaded.weights if key in state})
    dropped = sorted({part.rstrip(".") for part in TRAINING_ONLY if any(part in str(key) for key in found.state)})
    notes = [*found.notes, *loaded.notes]
    if dropped:
        notes.append(f"{' and '.join(dropped)}, which only training uses, were dropped")
    with translate(CheckpointError, f"reading {where}", OSError):
        digest = sha256(path)
    return Checkpoint(
        path=path,
        recipe=loaded.recipe,
        state=loaded.weights,
        source=found.source,
        stored_dtype=", ".join(stored),
        sha256=digest,
        args=args,
        notes=tuple(notes),
        epoch=epoch,
    )


def _load_evo_deit(
    state: dict[str, Tensor],
    args: dict[str, str],
    recipe: str | Recipe | None,
    num_heads: int | None,
    image_size: int | None,
    where: str,
) -> Loaded:
    """Recipe and float32 weights of an Evo-DeiT; arguments as for :func:`load_checkpoint`."""
    sizes = measure(state, where)
    weights, notes = to_float32(state, sizes, where)
    own_size = sizes.grid * sizes.patch_size
    target = own_size if image_size is None else image_size
    check_image_size(target, sizes.patch_size)
    if target != own_size:
        grid = target // sizes.patch_size
        weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], grid)
        notes.append(
            f"position embedding resized from {sizes.grid} x {sizes.grid} to {grid} x {grid} patches (bilinear) for "
            f"images of {target} pixels; the model was trained at {own_size}"
        )
    fitted, assumed = identify(sizes, target, args, recipe, num_heads, where)
    return Loaded(fitted, weights, [*assumed, *notes])


def _training(content: Any) -> tuple[dict[str, str], int | None]:
    """Training arguments with printable values, and the epoch."""
    if not isinstance(content, Mapping):
        return {}, None
    arguments = content.get("args", content.get("hyper_parameters"))  # Lightning's name
    values = arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})
    args = {str(k): str(v) for k, v in values.items() if isinstance(v, (str, int, float)) and str(v).isprintable()}
    if "model" not in args and isinstance(content.get("arch"), str):
        args["model"] = content["arch"]
    epoch = content.get("epoch")
    return args, epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None


def random_checkpoint(recipe: Recipe, seed: int = 0) -> Checkpoint:
    """Return the weights as before training, for measuring without a checkpoint; the same for the same seed.

    Args:
        recipe: An Evo-DeiT or Evo-LeViT recipe, or that of a timm ViT, from :func:`timm_recipe`.
        seed: Of the generator.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    notes: list[str] = []
    if recipe.family in VIT:
        recipe, state, notes = random_timm(recipe, seed)
    elif recipe.family == "evo_levit":
        state = _random_evo_levit(recipe, generator)
    else:
        state = _random_evo_deit(recipe, generator)
    return Checkpoint(
        path=None,
        recipe=recipe,
        state=state,
        source=f"random weights (seed {seed})",
        stored_dtype="float32",
        sha256=None,
        random=True,
        notes=("random weights: good for measuring speed and parity, the classes mean nothing", *notes),
    )


def _random_evo_deit(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    """As at the start of the authors' training."""
    import torch

    structure, _ = recipe.as_deit
    sizes = Sizes(
        embed_dim=structure.embed_dim,
        depth=structure.depth,
        patch_size=structure.patch_size,
        grid=structure.image_size // structure.patch_size,
        hidden=round(structure.embed_dim * structure.mlp_ratio),
        num_classes=structure.num_classes,
    )
    bound = (3 * structure.patch_size**2) ** -0.5  # torch's default for a convolution: 1 / sqrt(fan in)
    state: dict[str, Tensor] = {}
    for key, shape in expected_shapes(sizes).items():
        tensor = torch.empty(shape)
        if key.startswith("patch_embed."):
            tensor.uniform_(-bound, bound, generator=generator)
        elif len(shape) > 1:
            # A normal of deviation 0.02 truncated at 2, which is a hundred deviations out: no sample gets there.
            tensor.normal_(0, 0.02, generator=generator)
        else:
            tensor.fill_(1.0 if "norm" in key and key.endswith(".weight") else 0.0)
        state[key] = tensor
    return state


def _random_evo_levit(recipe: Recipe, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights that keep the size of their inputs, since BatchNorm's statistics are not those of any data.

    The authors begin with residual branches that BatchNorm multiplies by zero, which would make a network of nothing.
    """
    import torch

    state: dict[str, Tensor] = {}
    for key, shape in levit_shapes(recipe.as_levit[0]).items():
        if len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            deviation = 0.02 if key.endswith(("poss", "cls_token")) else fan_in**-0.5
            state[key] = torch.empty(shape).normal_(0, deviation, generator=generator)
        else:
            state[key] = torch.full(shape, 1.0 if key.endswith(("bn.weight", "running_var")) else 0.0)
    return state
