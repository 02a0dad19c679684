"""What is exported: a checkpoint, a recipe or a ViT of timm with random weights, or a vanilla model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..checkpoint.options import CheckpointOptions, option
from ..errors import InputError
from ..models.vit.timm_source import accuracy_note
from ..recipes import Recipe
from .baseline import BaselineKind, export_baseline, prepare_baseline
from .onnx import ExportOptions, ExportResult, PreparedExport, export_onnx, prepare

__all__ = ["ExportSource", "LoadedSource"]


@dataclass(frozen=True)
class LoadedSource:
    """A model that is ready to be exported.

    Attributes:
        recipe: Of what will be written.
        notes: What was assumed, filled in, dropped or resized.
        export: :func:`.export_onnx` or :func:`.export_baseline` without its first argument.
        prepare: Builds the modules only, for what is not ONNX.
    """

    recipe: Recipe
    notes: tuple[str, ...]
    export: Callable[..., ExportResult]
    prepare: Callable[[ExportOptions], PreparedExport]


@dataclass(frozen=True)
class ExportSource:
    """What is exported; exactly one of a checkpoint, ``random_weights``, ``baseline`` and a ViT of timm.

    Attributes:
        checkpoint: Checkpoint; or the weights of a ViT of timm, as in every other command.
        options: How it is understood; its ``from_timm`` names a ViT of timm.
        weights: Weights of that ViT, the other way to say it; None is random ones.
        random_weights: Export the recipe of ``options`` with random weights.
        seed: Of random weights; None is 0.
        baseline: Vanilla model, such as ``deit_small_patch16_224``, with random weights.
        baseline_kind: ``twin``, ``trimmed`` or ``stock``; for a ViT of timm it asks for the original. None is ``twin``.
    """

    checkpoint: Path | None = None
    options: CheckpointOptions = field(default_factory=CheckpointOptions)
    weights: Path | None = None
    random_weights: bool = False
    seed: int | None = None
    baseline: str | None = None
    baseline_kind: BaselineKind | None = None

    def __post_init__(self) -> None:
        timm, path, weights = self.options.from_timm, self.checkpoint, self.weights
        if timm is not None:
            self.options.weights(path, weights)
        given = (
            path is not None and not timm,
            self.random_weights and not timm,
            self.baseline is not None,
            timm is not None,
        )
        if sum(given) != 1:
            raise InputError(
                "give one of: a checkpoint file, `--recipe NAME --random-weights`, `--baseline NAME`, or `--from-timm NAME`."
            )
        if self.baseline is not None and (said := self.options.given):
            out = " and ".join(map(option, said))
            raise InputError(
                f"--baseline {self.baseline} is a vanilla model of its own size with random weights. Leave out {out}."
            )
        if self.baseline_kind is not None and self.baseline is None and timm is None:
            raise InputError(
                f"--baseline-kind {self.baseline_kind} needs --baseline NAME, or --from-timm NAME for the original of a ViT of "
                "timm. Leave it out."
            )
        if timm is None and weights is not None:
            raise InputError(f"--weights {weights} needs the name of the model in timm: --from-timm NAME.")
        file = self.options.weights(path, weights)
        if file is not None and self.random_weights:
            raise InputError(f"--random-weights goes without the weights in {file}. Leave out one.")
        if file is not None and self.seed is not None:
            raise InputError(f"--seed is for random weights, and {file} has weights. Leave it out.")
        named = ("keep", "r", "method", "schedule")
        if self.original and (said := [name for name in self.options.given if name in named]):
            out = " and ".join(map(option, said))
            raise InputError(f"--baseline-kind exports the original, which keeps every patch. Leave out {out}.")

    @property
    def original(self) -> bool:
        """Whether a ViT of timm is exported as it is, without token evolution."""
        return self.options.from_timm is not None and self.baseline_kind is not None

    @property
    def files(self) -> tuple[Path | str | None, ...]:
        """What is read."""
        recipe = self.options.recipe
        return self.checkpoint, self.weights, recipe if isinstance(recipe, str) else None

    def load(self) -> LoadedSource:
        """Read the model.

        Raises:
            CheckpointError, RecipeError, InputError: See :meth:`CheckpointOptions.load`.
        """
        from ..models.vanilla import vanilla_recipe

        kind = self.baseline_kind or "twin"
        if self.baseline is not None:
            named: dict[str, Any] = {"kind": kind, "seed": self.seed or 0}
            return LoadedSource(
                vanilla_recipe(self.baseline),
                (),
                partial(export_baseline, self.baseline, **named),
                partial(prepare_baseline, self.baseline, **named),
            )
        path = self.options.weights(self.checkpoint, self.weights)
        found = self.options.random(self.seed or 0) if path is None else self.options.load(path)
        if self.original:
            weighted: dict[str, Any] = {"kind": kind, "weights": found}
            cost = accuracy_note(found.recipe)  # which a model that keeps every patch does not have
            return LoadedSource(
                vanilla_recipe(found.recipe),
                tuple(text for text in found.notes if text != cost),
                partial(export_baseline, found.recipe, **weighted),
                partial(prepare_baseline, found.recipe, **weighted),
            )
        return LoadedSource(found.recipe, found.notes, partial(export_onnx, found), partial(prepare, found))
