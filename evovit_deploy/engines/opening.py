"""Opening models whose answers are looked at: a checkpoint, ONNX file or engine, alone or beside another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classes.output_names import is_feature
from ..errors import InputError, ModelFileError
from ..storage.files import printable
from ..storage.missing import no_such_file

if TYPE_CHECKING:
    from ..checkpoint.options import CheckpointOptions
    from ..models.options import ModelOptions
    from ..recipes import Recipe
    from .base import Engine

__all__ = ["OpenOptions", "open_models"]

Note = Callable[[str], None]


@dataclass(frozen=True)
class OpenOptions:
    """How models are opened.

    Attributes:
        provider: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads within an operator; None is the backend's choice.
        checkpoint: For checkpoints only, but for its recipe, which another file may be held against; None is the defaults.
    """

    provider: str = "auto"
    threads: int | None = None
    checkpoint: CheckpointOptions | None = None


def open_models(
    stack: ExitStack,
    paths: list[Path],
    options: OpenOptions,
    outputs: tuple[str, ...] = ("logits",),
    *,
    plain: bool = False,
    note: Note = lambda text: None,
) -> list[Engine]:
    """Open one model, or two that are compared; ``stack`` closes them.

    A checkpoint holds neither keep ratios nor schedule: without options that say them it takes those of the ONNX file or
    engine that it is compared with, and its own recipe's otherwise.

    Args:
        stack: Closes what was opened.
        paths: Model files.
        options: How.
        outputs: Of a checkpoint's module; other files have the outputs they were exported with.
        plain: For a proof: a checkpoint as the plain FP32 module on the CPU, with the input type of the file beside it, and half
            precision emulated on a CPU, which has no kernels for BF16 and does not round what is FP16.
        note: Called with what was assumed.

    Raises:
        ModelFileError: No such file, or not a model.
        InputError: Options for a checkpoint, and there is none.
    """
    from ..images.folder import SUFFIXES
    from ..models.options import ModelOptions
    from .base import Engine
    from .registry import backend_of, opener

    for path in paths:
        if path.suffix.lower() in SUFFIXES:
            raise InputError(f"{printable(path)} is an image, and a model is expected there. The model comes first.")
        if not path.is_file():
            raise no_such_file(path, ModelFileError, "Give a checkpoint, an ONNX file or an engine.")
    rows = {path: backend_of(path) for path in paths}
    checkpoints = [path for path, row in rows.items() if row is not None and row.kind == "checkpoint"]
    if options.checkpoint is not None and not checkpoints:
        options.checkpoint.refuse_for(paths[0], "Export it again.")
    opened: dict[Path, Engine] = {}
    for path in dict.fromkeys(paths):
        if path in checkpoints:
            continue
        row = opener(path)
        # In a proof the provider says where a file runs that has a choice; a TensorRT engine is held against it.
        provider = options.provider if not plain or options.provider in row.providers else "auto"
        emulate: dict[str, Any] = {name: plain for name in ("emulate", "strict") if plain and name in row.accepts}
        engine = Engine.open(path, provider=provider, threads=options.threads, **emulate)
        opened[path] = stack.enter_context(engine)
    like = next((recipe for e in opened.values() if (recipe := _evolved_recipe(e, plain)) is not None), None)
    module = ModelOptions(outputs=outputs)
    if plain:
        image_input = next((engine.spec.input for engine in opened.values()), "float32")
        told = (name for engine in opened.values() for name in engine.spec.outputs if is_feature(name))
        outputs = tuple(dict.fromkeys((*outputs, *told)))
        module = ModelOptions("fp32", image_input, outputs=outputs, fold=False, trim=False)  # type: ignore[arg-type]
        options = dataclasses.replace(options, provider="cpu")
    for path in dict.fromkeys(checkpoints):
        opened[path] = stack.enter_context(_open_checkpoint(path, options, like, module, note))
    return [opened[path] for path in paths]


def _evolved_recipe(engine: Engine, plain: bool) -> Recipe | None:
    """The recipe in a file's manifest, unless it is a vanilla twin, which has nothing to say about token evolution.

    In a proof (``plain``) the twin of a timm ViT does count: it is what the checkpoint of that ViT is held against.
    """
    from ..models.families import evolves, family_of
    from ..recipes import Recipe

    manifest = engine.spec.manifest
    if manifest is None:
        return None
    recipe = Recipe.from_dict(manifest["recipe"], "manifest")
    return recipe if evolves(recipe) or (plain and family_of(recipe).method) else None


def _open_checkpoint(path: Path, options: OpenOptions, like: Recipe | None, module: ModelOptions, note: Note) -> Engine:
    from ..checkpoint.options import CheckpointOptions
    from ..models.families import evolves, family_of
    from ..models.outputs import compared_outputs
    from .pytorch import TorchEngine

    how = options.checkpoint or CheckpointOptions()
    if like is not None and not how.says_schedule:
        how = dataclasses.replace(how, recipe=like, image_size=like.structure.image_size, from_timm=None, pool=None)
        note(f"{printable(path)} does not hold its keep ratios and schedule; those of the model beside it are used")
        checkpoint = how.load(path)
    else:
        checkpoint = how.load(path)
        for text in checkpoint.notes:
            note(text)
    family = family_of(checkpoint.recipe)
    # A model that selects nothing has no kept patches, and one without a head no scores.
    valid = family.outputs if evolves(checkpoint.recipe) else family.vanilla.outputs
    shown = compared_outputs(module.outputs, checkpoint.recipe, valid)
    wanted = tuple(name for name in shown if name in module.outputs or name == "embedding")
    module = dataclasses.replace(module, outputs=wanted)
    if not module.fold:
        module = dataclasses.replace(module, selection=family.plain_pattern)
    return TorchEngine.from_checkpoint(checkpoint, module, provider=options.provider, threads=options.threads)
