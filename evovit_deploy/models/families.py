"""Families of models: one row each, which everything that depends on the family reads.

A family lies in one folder (`vit/`, `levit/`), whose `family.py` ends in :func:`register`; :mod:`.shipped` names the folders.
Rows import neither torch nor timm before they are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..classes.output_names import TOKENS
from ..errors import InputError
from ..recipes import PRECISIONS, Recipe
from ..recipes.forms import FORMS, Form, TokenEvolution, form_of
from ..recipes.precisions import why_not
from ..suggest import did_you_mean
from .outputs import settle_outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .options import ModelOptions
    from .seams import Seam
    from .space import Space

__all__ = [
    "METHOD",
    "Family",
    "Loaded",
    "Rates",
    "Source",
    "Vanilla",
    "by_method",
    "evolves",
    "families",
    "family_of",
    "label_of",
    "methods",
    "rated",
    "register",
    "unregister",
]

METHOD = "evo"  # what goes on a plain ViT of timm unless something else is said


class Rates(NamedTuple):
    """How much is left out, as the user said it; which of the two is meant, and what it means, the family says.

    Attributes:
        keep: Keep ratios; None was not given.
        r: Tokens merged a block; None was not given.
    """

    keep: tuple[float, ...] | None = None
    r: tuple[float, ...] | None = None

    @property
    def given(self) -> dict[str, tuple[float, ...]]:
        """Those that were given, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Source(NamedTuple):
    """What is known of weights before their family is: the tensors of a checkpoint, and what the user said of them.

    Attributes:
        state: Dense tensors on the CPU by the names in the file, without wrappers and training-only heads.
        where: The checkpoint, for messages.
        args: Training arguments with printable values.
        recipe: That the user gave, of any family.
        num_heads, image_size, timm, pool, method: As for ``load_checkpoint``.
        rates: That the user gave. They are applied to what is loaded by :func:`rated`; a family that cannot load without
            them reads them here.
    """

    state: dict[str, Tensor]
    where: str
    args: Mapping[str, str] = {}
    recipe: Recipe | None = None
    num_heads: int | None = None
    image_size: int | None = None
    timm: str | None = None
    pool: str | None = None
    method: str | None = None
    rates: Rates = Rates()


class Loaded(NamedTuple):
    """What weights became: a recipe with their structure, checked float32 tensors in the names of the file, and notes."""

    recipe: Recipe
    weights: dict[str, Tensor]
    notes: list[str]


@dataclass(frozen=True)
class Vanilla:
    """The model that a family is compared with: the same sizes, every token in every block. Families may share one.

    Attributes:
        name: In recipes and manifests, such as ``deit``.
        label: For people.
        form: The tables of its recipes.
        recipe: Recipe of an evolved model -> that of this one.
        stock: (recipe, seed) -> the module as its library ships it, in eval mode, FP32, with seeded random weights.
        twin: (recipe, its weights in the names of ``stock``, options) -> the same function in our code, folded and typed.
        outputs: Kinds of outputs (:mod:`.outputs`) that it can be exported with.
        no_operator: As of a :class:`Family`.
    """

    name: str
    label: str
    form: Form
    recipe: Callable[[Recipe], Recipe]
    stock: Callable[[Recipe, int], nn.Module]
    twin: Callable[[Recipe, Mapping[str, Tensor], ModelOptions], nn.Module]
    outputs: tuple[str, ...] = ("logits", "probabilities")
    no_operator: str = ""


@dataclass(frozen=True)
class Family:
    """One way to leave tokens out of one kind of network.

    A module (of ``build`` and of :attr:`Vanilla.twin`) is in eval mode on the CPU and has ``structure``, ``image_input``,
    ``output_names`` and ``forward(images) -> tuple`` in their order. One that gives ``kept_1``, ``kept_2``, ... also has
    ``pattern`` and ``selection_of(scores, keep)``, see :mod:`.recording`.

    Attributes:
        name: In recipes and manifests, such as ``evo_deit``; files keep it for ever.
        label: For people.
        form: The tables of its recipes.
        vanilla: What it is compared with.
        recognise: Whether these are its weights, by names, shapes and training arguments; cheap.
        load: Weights -> :class:`Loaded`. Raises CheckpointError, InputError, RecipeError.
        random: (recipe, seed) -> :class:`Loaded` with seeded random weights that keep activations in range.
        build: (recipe, weights as ``load`` gives them, options with a pattern of this family) -> the module.
        grids: Recipe -> patches per side of every selection, in the order of ``kept_1``, ``kept_2``, ...
        fuses: Of a family whose left-out tokens do not come back, recipe -> whether those of a selection become one token: N, the
            number of patches, stands for that of the first selection in what is kept later, N + 1 for that of the second. None
            of all others.
        sizes: Recipe -> JSON-ready sizes: ``size``, ``image_size``, ``patch_size``, ``num_patches``, ``embed_dim``,
            ``num_heads``, ``depth``, ``mlp_ratio``, ``num_classes`` and others; lists where stages differ.
        schedule: Recipe -> JSON-ready token evolution: ``schedule``, ``keep_ratios``, ``tradeoff``, ``groups``.
        auto_pattern: What ``--selection auto`` selects with; docs/graph.md and bench/results hold the measurements.
        refused_patterns: Patterns that it cannot use -> why, after "selection NAME ".
        outputs: Kinds of outputs (:mod:`.outputs`) that it can be exported with.
        refused_outputs: Kinds that it cannot give -> why, after "NAME ".
        no_operator: Why its attention cannot be the ONNX operator Attention; empty where it can.
        precisions: That it can be exported with.
        seams: FP32 module of ``build`` -> where it can be scaled by powers of two exactly, see :mod:`.seams`.
        method: Of a family that is put on any plain ViT of timm without training, its name (``evo``): nothing in the weights
            tells it, the user or a recipe does, and the vanilla model has the very same weights. Empty for all others.
        trained: Of a family whose checkpoints were trained with a method, the name of that method. Empty for all others.
        start: Of a family with a method: sizes -> what goes on a plain ViT of these sizes unless something else is said.
        rates: Which of :class:`Rates` say how much is left out, and how: (evolution, what was given) -> the same with it.
            Raises RecipeError for numbers that it cannot have.
        space: (recipe, rates to try) -> the schedules that a sweep and a search choose from, beginning at the places of the
            recipe; None where there is nothing to choose.
        work: Recipe -> multiply-accumulates of one image, estimated from the token counts; a search compares schedules by it
            before it exports them.
        mark: A tensor that its checkpoints have and those of others have not, to be named where no family knows the weights.
        near_miss: What to say of weights that no family recognises, but this one knows the kin of; None to say nothing.
    """

    name: str
    label: str
    form: Form
    vanilla: Vanilla
    recognise: Callable[[Source], bool]
    load: Callable[[Source], Loaded]
    random: Callable[[Recipe, int], Loaded]
    build: Callable[[Recipe, Mapping[str, Tensor], ModelOptions], nn.Module]
    grids: Callable[[Recipe], tuple[int, ...]]
    sizes: Callable[[Recipe], dict[str, Any]]
    schedule: Callable[[Recipe], dict[str, Any]]
    fuses: Callable[[Recipe], bool] | None = None
    auto_pattern: str = "topk"
    refused_patterns: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("logits", "probabilities", "kept")
    refused_outputs: Mapping[str, str] = field(default_factory=dict)
    no_operator: str = ""
    precisions: tuple[str, ...] = PRECISIONS
    seams: Callable[[nn.Module], Sequence[Seam]] = lambda module: ()
    method: str = ""
    trained: str = ""
    start: Callable[[Any], TokenEvolution] | None = None
    rates: Mapping[str, Callable[[Any, tuple[float, ...]], TokenEvolution]] = field(
        default_factory=lambda: {"keep": lambda evolution, given: evolution.with_keep(given)}  # type: ignore[no-any-return]
    )
    space: Callable[[Recipe, Rates], Space] | None = None
    work: Callable[[Recipe], float] | None = None
    mark: str = ""
    near_miss: Callable[[Source], str | None] = lambda source: None

    @property
    def plain_pattern(self) -> str:
        """What the plain module selects with that exports are held against."""
        return self.auto_pattern if "topk" in self.refused_patterns else "topk"

    def settled(self, options: ModelOptions, recipe: Recipe) -> ModelOptions:
        """Return the options with the outputs that a model of this recipe gives by default where none are given.

        Args:
            options: As asked for.
            recipe: Of this family, or of its vanilla model.

        Raises:
            InputError: A precision or an output that the model does not have.
        """
        if options.precision not in self.precisions:
            why = why_not(options.precision)
            raise InputError(
                f"precision {options.precision} is not for {self.label}; valid: {', '.join(self.precisions)}.{why}"
            )
        evolved = recipe.family == self.name
        row, depth = self if evolved else self.vanilla, self.sizes(recipe)["depth"]
        refused = {
            **self.refused_outputs,
            **({} if evolved else dict.fromkeys(TOKENS, KEEPS_ALL)),
        }
        found = settle_outputs(
            options.outputs, recipe, row.outputs, row.label, depth if isinstance(depth, int) else sum(depth), refused
        )
        return dataclasses.replace(options, outputs=found)


KEEPS_ALL = "is not there: a vanilla model keeps every token; leave it out of --outputs"
_ROWS: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a family; from then on its recipes are read and its checkpoints are recognised.

    Raises:
        ValueError: There is one of that name or method, or another vanilla model of the same name.
    """
    vanillas = {row.vanilla.name: row.vanilla for row in _ROWS.values()}
    if family.name in FORMS or vanillas.get(family.vanilla.name, family.vanilla) is not family.vanilla:
        raise ValueError(f"there is a family called {family.name} or {family.vanilla.name} already")
    if family.method and any(row.method == family.method for row in _ROWS.values()):
        raise ValueError(f"there is a method called {family.method} already")
    _ROWS[family.name] = family
    FORMS[family.name] = family.form
    FORMS[family.vanilla.name] = family.vanilla.form


def unregister(name: str) -> None:
    """Take a family out again; its vanilla model too, unless another family has it."""
    vanilla = _ROWS.pop(name).vanilla.name
    del FORMS[name]
    if all(row.vanilla.name != vanilla for row in _ROWS.values()):
        del FORMS[vanilla]


def families() -> tuple[Family, ...]:
    """Return all rows, in the order of registration, which is the order of recognition."""
    return tuple(_ROWS.values())


def family_of(recipe: Recipe | str) -> Family:
    """Return the row of a recipe, or of a family by name; a vanilla model's is the first that is compared with it.

    Raises:
        RecipeError: No such family.
    """
    name = recipe if isinstance(recipe, str) else recipe.family
    form_of(name)
    return _ROWS.get(name) or next(row for row in _ROWS.values() if row.vanilla.name == name)


def evolves(recipe: Recipe | str | None) -> bool:
    """Return whether tokens are left out in a recipe, or in a family by name; not in a vanilla or unknown model."""
    return (recipe.family if isinstance(recipe, Recipe) else recipe) in _ROWS


def label_of(name: str) -> str:
    """Return what people call a family, evolved or vanilla; the name itself of one that is unknown."""
    labels = {row.vanilla.name: row.vanilla.label for row in _ROWS.values()} | {r.name: r.label for r in _ROWS.values()}
    return labels.get(name, name)


def methods() -> tuple[str, ...]:
    """Return the names of the methods that go on any plain ViT of timm."""
    return tuple(row.method for row in _ROWS.values() if row.method)


def by_method(method: str) -> Family:
    """Return the family of a method that goes on any plain ViT of timm.

    Raises:
        InputError: No such method.
    """
    known = {row.method: row for row in _ROWS.values() if row.method}
    if method not in known:
        raise InputError(f"method {method!r} is unknown; valid: {', '.join(known)}.{did_you_mean(method, known)}")
    return known[method]


def rated(recipe: Recipe, rates: Rates) -> Recipe:
    """Return a recipe with the rates that were given.

    Raises:
        InputError: Rates that its family does not have.
        RecipeError: Numbers that do not go with its schedule.
    """
    family, evolution = family_of(recipe), recipe.evolution
    for name, value in rates.given.items():
        if name not in family.rates:
            valid = " and ".join(f"--{rate}" for rate in family.rates)
            raise InputError(f"--{name} is not for {family.label}, which takes {valid}. Leave it out.")
        evolution = family.rates[name](evolution, value)
    return dataclasses.replace(recipe, evolution=evolution)
