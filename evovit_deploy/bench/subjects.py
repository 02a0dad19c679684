"""Opening what is measured: model files, checkpoints exported on the spot, and the vanilla twin of either."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.registry import is_exported
from ..errors import InputError
from ..models.families import evolves, family_of
from ..recipes import Recipe
from ..storage.files import plain
from ..suggest import did_you_mean
from .route import Route
from .settings import KINDS, baselines_of
from .subject import Opened

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..checkpoint.options import CheckpointOptions
    from ..engines.base import Engine

__all__ = ["Opening", "recipe_of"]


def recipe_of(engine: Engine) -> Recipe | None:
    """Return the recipe in an exported file's manifest; None for a file of another tool."""
    manifest = engine.spec.manifest
    return None if manifest is None else Recipe.from_dict(manifest["recipe"], "manifest")


class Opening:
    """Opens engines one by one and remembers what the baseline must resemble: the first.

    Attributes:
        subjects: Label -> open subject, in order; engines are closed when ``stack`` is.
        notes: What a reader of the report should know about them.
        step: Called with a few words while something takes time.
    """

    def __init__(
        self, stack: ExitStack, folder: Path, route: Route, step: Callable[[str], None] = lambda text: None
    ) -> None:
        self.stack, self.folder, self.route, self.step = stack, folder, route, step
        self.subjects: dict[str, Opened] = {}
        self.notes: list[str] = []
        self._weights: Checkpoint | None = None  # of the first, if its baseline can have them too
        self._first: tuple[Engine, Recipe | None, Path | None] | None = None

    def file(self, path: Path, understood: CheckpointOptions | None = None) -> str:
        """Open an ONNX file, an engine or a checkpoint, the latter as ``understood``; returns its label."""
        if path.is_file() and not is_exported(path):
            return self.checkpoint(path, understood)
        self.step(f"opening {path.name}")
        found = self.route.open_file(path)
        return self._add(found.but(label=plain(path.stem)), recipe_of(found.engine), path)

    def checkpoint(
        self, path: Path | None, understood: CheckpointOptions | None = None, selection: str | None = None
    ) -> str:
        """Open a checkpoint, or a recipe or ViT of timm with random weights, through the export that `evovit export` does.

        Args:
            path: Checkpoint; None for random weights.
            understood: How it is understood; None is the defaults.
            selection: Selection pattern, in place of the route's; part of the label then.
        """
        from ..checkpoint.options import CheckpointOptions
        from ..export import ExportOptions

        route = self.route
        if selection is not None:
            options = route.export or ExportOptions()
            model = dataclasses.replace(options.model, selection=selection)
            route = dataclasses.replace(route, export=dataclasses.replace(options, model=model))
        understood = understood or CheckpointOptions()
        found = understood.random() if path is None else understood.load(path)
        opened = route.open_checkpoint(found, self.folder, self.step)
        if self._first is None and family_of(found.recipe).method and not found.random:
            self._weights = found
        name = found.recipe.name if path is None else plain(path.stem)
        if found.random:
            opened = opened.but(random_weights=True)
        label = self._add(opened.but(label=name if selection is None else f"{name} {selection}"), found.recipe)
        self.notes.extend(f"{label}: {note}" for note in found.notes)
        return label

    def baselines(self, wanted: str) -> tuple[str, ...]:
        """Open the baselines, one or several between commas, and return their labels; none where there is none."""
        return tuple(filter(None, map(self.baseline, baselines_of(wanted))))

    def baseline(self, wanted: str) -> str | None:
        """Open one baseline and return its label; None without one."""
        assert self._first is not None
        engine, recipe, path = self._first
        if wanted == "none":
            return None
        if wanted != "auto" and wanted not in KINDS:
            if not Path(wanted).is_file():
                hint = did_you_mean(wanted, ("auto", "none", *KINDS))
                raise InputError(
                    f"--baseline {wanted}: no such file.{hint} Valid: auto, none, {', '.join(KINDS)}, or a model file."
                )
            return self.file(Path(wanted))
        if wanted == "auto" and not evolves(recipe):
            why = (
                "was not exported by evovit, so its twin is unknown" if recipe is None else "is a vanilla model itself"
            )
            self.notes.append(f"no baseline: {engine.spec.name} {why}; give one with --baseline FILE")
            return None
        if recipe is None:
            raise InputError(
                f"{engine.spec.name} was not exported by evovit, so its vanilla {wanted} is unknown. Give --baseline FILE "
                f"or none."
            )
        kind = "twin" if wanted == "auto" else wanted
        twin = self.route.like(engine, path).open_vanilla(kind, recipe, self.folder, self.step, self._weights)
        if self._weights is None:
            twin = twin.but(random_weights=True)
        label = self._add(twin.but(label=f"{twin.subject.name} {kind}"))
        if self._weights is None:
            self.notes.append(f"{label} has random weights; latency does not depend on their values")
        if any(name.startswith("kept_") for name in engine.spec.outputs):
            note = f"{engine.spec.name} also outputs the kept tokens, which a vanilla model does not have"
            self.notes += [] if note in self.notes else [note]  # once for all baselines
        return label

    def _add(self, opened: Opened, recipe: Recipe | None = None, path: Path | None = None) -> str:
        """Keep an open subject until the end of the run, under its label or a numbered one."""
        engine, label = opened.engine, opened.subject.label
        self.stack.callback(engine.close)
        self._first = self._first or (engine, recipe, path)
        number, unique = 2, label
        while unique in self.subjects:
            unique, number = f"{label} #{number}", number + 1
        if recipe is not None:
            opened = opened.knowing(**_recipe_facts(recipe))
        self.subjects[unique] = opened.but(label=unique)
        first, count, here = next(iter(self.subjects)), self._first[0].spec.num_classes, engine.spec.num_classes
        if here != count:
            self.notes.append(
                f"{unique} gives scores of {here or 'no'} classes, {first} of {count or 'none'}: not the same work"
            )
        return unique


def _recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """The recipe's hash and what the paper measured."""
    published, speedup = recipe.published, None
    if published.images_per_second and published.baseline_images_per_second:
        speedup = published.images_per_second / published.baseline_images_per_second
    canonical = json.dumps(recipe.to_dict(), sort_keys=True, separators=(",", ":")).encode()
    return {
        "recipe_sha256": hashlib.sha256(canonical).hexdigest(),
        "published_speedup": speedup,
        "published_images_per_second": published.images_per_second,
        "published_source": published.source if speedup else None,
    }
