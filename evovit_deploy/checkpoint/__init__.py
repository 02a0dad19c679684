"""Checkpoints: any form that a model of a known family was saved in becomes one `Checkpoint`, read safely and checked tensor
by tensor.

    checkpoint = load_checkpoint("checkpoint.pth")
    checkpoint.recipe.structure.image_size, checkpoint.notes

`reading` opens files, `finding` chooses the weights in them; what they are, their family says (:mod:`.models.families`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, InputError, translate
from ..models.checks import some
from ..models.families import Family, Rates, Source, by_method, families, family_of, label_of, rated
from ..models.vit.timm_source import method_of, timm_recipe
from ..recipes import Recipe, load_recipe
from ..storage.files import sha256
from .cleaning import TRAINING_ONLY, clean
from .finding import find_weights
from .reading import read_file
from .schemes import check_names

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "load_checkpoint", "random_checkpoint", "timm_recipe", "varied"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one model, and the recipe they run with.

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
    method: str | None = None,
    keep: float | Sequence[float] | None = None,
    r: float | Sequence[float] | None = None,
    schedule: str | None = None,
) -> Checkpoint:
    """Read a checkpoint of any family, or of a timm ViT: `.pth` of any torch version (nothing in it is run), or safetensors.

    Args:
        path: The file; its content decides how it is read, not its name.
        recipe: Name or path of a recipe, or a recipe. Without one, that of the training arguments (``args.model``) or
            of the same structure, else the published schedule.
        num_heads: For an embed dim that is no multiple of 64, where no recipe says it; of Evo-LeViT, the heads of stage 1.
        image_size: Resize the position embedding to images of this many pixels a side.
        ema: Use the averaged weights (``model_ema`` and the like); without them, the raw ones, if the file has any.
        timm: Name in timm of the ViT that these are the weights of; a recipe for a timm ViT says it too.
        pool: Of a timm ViT: ``token`` or ``avg``, where it is not the model's own.
        method: What goes on a timm ViT, such as ``evo``, which it is by default; of other weights, how they were trained, where
            the file does not say.
        keep: Keep ratios, where the recipe's are not wanted: one for all places, or one a place, or one a block.
        r: Tokens merged a block, of a method that merges.
        schedule: ``stage`` or ``layer``, where the recipe's is not wanted.

    Raises:
        CheckpointError: Unreadable, refused, another model, or tensors that are missing, misshapen or not finite.
        InputError: ``image_size`` or ``num_heads`` does not fit the model, or it has no such method, rates or schedule.
        RecipeError: No such recipe, or a broken one; rates that do not go with it.
    """
    path = Path(path)
    where = str(path)
    given = load_recipe(recipe) if isinstance(recipe, str) else recipe
    content = read_file(path)
    found = find_weights(content, where, ema)
    state = clean(found.state, where)
    check_names(state, where)
    args, epoch = _training(content)
    rates = Rates(_several(keep), _several(r))
    source = Source(state, where, args, given, num_heads, image_size, timm, pool, method, rates)
    with translate(CheckpointError, f"reading the tensors of {where}", RuntimeError, MemoryError):
        loaded = _family(source).load(source)
    stored = sorted({str(state[key].dtype).removeprefix("torch.") for key in loaded.weights if key in state})
    dropped = sorted({part.rstrip(".") for part in TRAINING_ONLY if any(part in str(key) for key in found.state)})
    notes = [*found.notes, *loaded.notes]
    if dropped:
        notes.append(f"{' and '.join(dropped)}, which only training uses, were dropped")
    with translate(CheckpointError, f"reading {where}", OSError):
        digest = sha256(path)
    checkpoint = Checkpoint(
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
    return varied(checkpoint, rates, schedule)


def _several(given: float | Sequence[float] | None) -> tuple[float, ...] | None:
    return None if given is None else tuple(given) if isinstance(given, Sequence) else (given,)


def varied(checkpoint: Checkpoint, rates: Rates, schedule: str | None = None) -> Checkpoint:
    """Return a checkpoint with other rates and another schedule than its recipe has, and a note on them.

    Raises:
        InputError: Its family has no such rates or schedule.
        RecipeError: They do not go with its recipe.
    """
    recipe, notes = checkpoint.recipe, checkpoint.notes
    if schedule is not None:
        schedules = recipe.evolution.schedules
        if len(schedules) < 2:
            raise InputError(f"{label_of(recipe.family)} has the {schedules[0]} schedule only. Leave --schedule out.")
        recipe = dataclasses.replace(recipe, evolution=recipe.evolution.with_schedule(schedule))
    recipe = rated(recipe, rates)
    for name, value in rates.given.items():
        said, what = ",".join(f"{rate:g}" for rate in value), "keep ratios" if name == "keep" else name
        notes = (
            *(note for note in notes if not note.startswith(f"{what} (")),
            f"{what} ({said}) are those of --{name}",
        )
    return dataclasses.replace(checkpoint, recipe=recipe, notes=notes)


def _family(source: Source) -> Family:
    """The family of weights: of a timm ViT what the user says, of all others what the tensors say.

    Raises:
        CheckpointError: No family knows them.
        InputError: They are not of the method that the user says.
    """
    if source.timm is not None or (source.recipe is not None and family_of(source.recipe).method):
        return method_of(source.recipe, source.method)
    if source.method is not None:
        by_method(source.method)  # or says which there are
    family = next((family for family in families() if family.recognise(source)), None)
    if family is not None:
        if source.method not in (None, family.trained):
            raise InputError(
                f"{source.where} is an {family.label}: its weights say the method, and --method {source.method} does not go with "
                "them. Leave it out."
            )
        return family
    hints = (family.near_miss(source) for family in families())
    hint = next(filter(None, hints), None)
    if hint is None:
        marks = ", ".join(f"`{family.mark}` ({family.label})" for family in families() if family.mark)
        hint = (
            f"is the checkpoint of a different model: it has {some(source.state)}, and no tensor that a family is known by: "
            f"{marks}. Valid: a checkpoint of the authors' training code; or, with --from-timm NAME --weights, of a ViT of timm."
        )
    raise CheckpointError(f"{source.where} {hint}")


def _training(content: Any) -> tuple[dict[str, str], int | None]:
    """Training arguments with printable values, and the epoch."""
    if not isinstance(content, Mapping):
        return {}, None
    arguments = content.get("args", content.get("hyper_parameters"))  # Lightning's name
    values = arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})
    args = {str(k): str(v) for k, v in values.items() if _is_plain(v) and str(v).isprintable()}
    if "model" not in args and isinstance(content.get("arch"), str):
        args["model"] = content["arch"]
    epoch = content.get("epoch")
    return args, epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 1024 and all(isinstance(part, (int, float)) for part in value)
    return isinstance(value, (str, int, float))


def random_checkpoint(recipe: Recipe, seed: int = 0) -> Checkpoint:
    """Return the weights as before training, for measuring without a checkpoint; the same for the same seed.

    Args:
        recipe: Of any family; that of a timm ViT is from :func:`timm_recipe`.
        seed: Of the generator.
    """
    loaded = family_of(recipe).random(recipe, seed)
    return Checkpoint(
        path=None,
        recipe=loaded.recipe,
        state=loaded.weights,
        source=f"random weights (seed {seed})",
        stored_dtype="float32",
        sha256=None,
        random=True,
        notes=("random weights: good for measuring speed and parity, the classes mean nothing", *loaded.notes),
    )
