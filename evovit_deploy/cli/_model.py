"""Opening models for commands that look at their answers: a checkpoint, ONNX file or engine, alone or beside another."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelFileError
from ..storage.files import printable
from ..storage.missing import no_such_file
from ._console import err
from ._source import open_checkpoint

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..models.options import ModelOptions
    from ..recipes import Recipe

__all__ = ["ModelChoice", "note", "open_models", "warn"]


@dataclass(frozen=True)
class ModelChoice:
    """How models are opened. From ``keep`` on they are for checkpoints only; a ``recipe`` may also be held against a file."""

    provider: str = "auto"
    threads: int | None = None
    recipe: str | None = None
    keep: str | None = None
    schedule: str | None = None
    ema: bool = False
    num_heads: int | None = None
    from_timm: str | None = None


def note(text: str) -> None:
    """Print a note on stderr."""
    err().print(f"note: {text}", markup=False, style="dim", soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr: the result may be wrong."""
    err().print(f"warning: {text}", markup=False, style="yellow", soft_wrap=True)


def open_models(
    stack: ExitStack,
    paths: list[Path],
    choice: ModelChoice,
    outputs: tuple[str, ...] = ("logits",),
    *,
    plain: bool = False,
) -> list[Engine]:
    """Open one model, or two that are compared; ``stack`` closes them.

    A checkpoint holds neither keep ratios nor schedule: without options that say them it takes those of the ONNX file or
    engine that it is compared with, and its own recipe's otherwise.

    Args:
        stack: Closes what was opened.
        paths: Model files.
        choice: How.
        outputs: Of a checkpoint's module; other files have the outputs they were exported with.
        plain: For a proof: a checkpoint as the plain FP32 module on the CPU, with the input type of the file beside it, and BF16
            emulated on a CPU, which has no kernels for it.

    Raises:
        ModelFileError: No such file, or not a model.
        InputError: Options for a checkpoint, and there is none.
    """
    from ..engines import Engine
    from ..engines.registry import backend_of, opener
    from ..images.folder import SUFFIXES
    from ..models.options import ModelOptions

    for path in paths:
        if path.suffix.lower() in SUFFIXES:
            raise InputError(f"{printable(path)} is an image, and a model is expected there. The model comes first.")
        if not path.is_file():
            raise no_such_file(path, ModelFileError, "Give a checkpoint, an ONNX file or an engine.")
    rows = {path: backend_of(path) for path in paths}
    checkpoints = [path for path, row in rows.items() if row is not None and row.kind == "checkpoint"]
    given = [name for name in ("keep", "schedule", "ema", "num_heads", "from_timm") if getattr(choice, name)]
    if given and not checkpoints:
        raise InputError(
            f"--{given[0].replace('_', '-')} is for checkpoints, and {printable(paths[0])} has it fixed. Export it again."
        )
    opened: dict[Path, Engine] = {}
    for path in dict.fromkeys(paths):
        if path in checkpoints:
            continue
        row = opener(path)
        # In a proof the provider says where a file runs that has a choice; a TensorRT engine is held against it.
        provider = choice.provider if not plain or choice.provider in row.providers else "auto"
        emulate: dict[str, Any] = {"emulate": True} if plain and "emulate" in row.accepts else {}
        engine = Engine.open(path, provider=provider, threads=choice.threads, **emulate)
        opened[path] = stack.enter_context(engine)
    like = next((recipe for e in opened.values() if (recipe := _evolved_recipe(e, plain)) is not None), None)
    options = ModelOptions(outputs=outputs)
    if plain:
        image_input = next((engine.spec.input for engine in opened.values()), "float32")
        options = ModelOptions("fp32", image_input, "topk", outputs, fold=False, trim=False)  # type: ignore[arg-type]
        choice = dataclasses.replace(choice, provider="cpu")
    for path in dict.fromkeys(checkpoints):
        opened[path] = stack.enter_context(_open_checkpoint(path, choice, like, options))
    return [opened[path] for path in paths]


def _evolved_recipe(engine: Engine, plain: bool) -> Recipe | None:
    """The recipe in a file's manifest, unless it is a vanilla twin, which has nothing to say about token evolution.

    In a proof (``plain``) the twin of a timm ViT does count: it is what the checkpoint of that ViT is held against.
    """
    from ..recipes import Recipe

    manifest = engine.spec.manifest
    if manifest is None or not (manifest["family"].startswith("evo_") or (plain and manifest["family"] == "vit")):
        return None
    return Recipe.from_dict(manifest["recipe"], "manifest")


def _open_checkpoint(path: Path, choice: ModelChoice, like: Recipe | None, options: ModelOptions) -> Engine:
    from ..checkpoint import load_checkpoint
    from ..engines import TorchEngine

    if like is not None and choice.recipe is None and choice.keep is None and choice.schedule is None:
        checkpoint = load_checkpoint(
            path, recipe=like, num_heads=choice.num_heads, image_size=like.structure.image_size, ema=choice.ema
        )
        note(f"{printable(path)} does not hold its keep ratios and schedule; those of the model beside it are used")
    else:
        checkpoint = open_checkpoint(
            path,
            recipe=choice.recipe,
            keep=choice.keep,
            schedule=choice.schedule,
            num_heads=choice.num_heads,
            ema=choice.ema,
            from_timm=choice.from_timm,
        )
        for text in checkpoint.notes:
            note(text)
    return TorchEngine.from_checkpoint(checkpoint, options, provider=choice.provider, threads=choice.threads)
