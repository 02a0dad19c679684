"""`evovit verify`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ModelFileError, ParityError
from ..missing import no_such_file
from . import _options as shared
from ._choices import Provider
from ._console import err, out, print_json
from ._model import warn

if TYPE_CHECKING:
    from ..engines import Engine

__all__ = ["verify"]


def verify(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Checkpoint, ONNX file or TensorRT engine to compare with.")
    ],
    model: shared.Model,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|FOLDER", help="Images, repeatable. Default: seeded ones.", rich_help_panel=shared.DATA
        ),
    ] = None,
    ema: shared.Ema = False,
    provider: shared.Provider = Provider.auto,
    json: shared.Json = False,
) -> None:
    """Compare any two of checkpoint, ONNX file and TensorRT engine on the same images; exit 3 if they differ.

    Examples:
      evovit verify ckpt.pth model.onnx --images photos/
      evovit verify model.onnx model.engine
    """
    from ..export import verify as compare_engines

    with ExitStack() as stack:
        a, b = _open_pair(stack, reference, model, ema=ema, provider=provider.value)
        report = compare_engines(a, b, _read_images(images, a, b))
    if json:
        print_json({"reference": str(reference), "model": str(model), **report.to_dict()})
    else:
        from ._parity import parity_table

        out().print(parity_table(report, f"{model.name} against {reference.name}"))
        if not report.jaccard:
            err().print("[dim]note: kept sets were not compared; export with --outputs logits,kept to see them.[/]")
    if not report.passed:
        raise ParityError(f"{model} is not the same function as {reference}: {report.failure}.")


def _open_pair(stack: ExitStack, first: Path, second: Path, *, ema: bool, provider: str) -> tuple[Engine, Engine]:
    """Open both; a checkpoint takes keep ratios, schedule and input type from the exported file it is compared with."""
    from ..checkpoint import load_checkpoint
    from ..engines import OrtEngine, TorchEngine, TrtEngine
    from ..engines.base import backend_of
    from ..models.evo_deit import ModelOptions
    from ..recipes import Recipe

    opened: dict[Path, Engine] = {}
    for path in (first, second):
        if not path.is_file():
            raise no_such_file(path, ModelFileError, "Give a checkpoint, an ONNX file or an engine.")
    for path in (first, second):
        if backend_of(path) == "tensorrt":
            opened[path] = stack.enter_context(TrtEngine(path))
        elif backend_of(path) == "onnxruntime":
            opened[path] = stack.enter_context(OrtEngine(path, provider=provider, emulate=True))
    manifest = next((e.spec.manifest for e in opened.values() if e.spec.manifest is not None), None)
    for path in (first, second):
        if path in opened:
            continue
        if manifest is None or manifest["family"] in ("deit", "levit"):
            checkpoint, image_input = load_checkpoint(path, ema=ema), "float32"
        else:
            recipe = Recipe.from_dict(manifest["recipe"], "manifest")
            checkpoint = load_checkpoint(path, recipe=recipe, ema=ema, image_size=recipe.structure.image_size)
            image_input = manifest["input"]
        options = ModelOptions("fp32", image_input, "topk", ("logits", "kept"), fold=False, trim=False)  # type: ignore[arg-type]
        opened[path] = stack.enter_context(TorchEngine.from_checkpoint(checkpoint, options, provider="cpu"))
    return opened[first], opened[second]


def _read_images(paths: list[Path] | None, a: Engine, b: Engine) -> tuple[Any, Any] | None:
    """Images for each engine, each with its own transform and input type; None for seeded ones."""
    if not paths:
        return None
    import numpy as np

    from ..preprocess import find_images, load_image, preprocess
    from ..recipes import Transform

    left_out: list[str] = []
    found = [load_image(path) for path in find_images(paths, left_out)]
    for text in left_out:
        warn(text)
    batches = []
    for engine in (a, b):
        transform = engine.spec.transform or Transform()
        batches.append(np.stack([preprocess(i, transform, engine.spec.image_size, engine.spec.input) for i in found]))
    return batches[0], batches[1]
