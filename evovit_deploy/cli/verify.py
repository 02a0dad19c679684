"""`evovit verify`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParityError
from ..storage.files import printable
from . import _options as shared
from ._console import note, out, print_json, warn
from ._groups import grouped
from ._shared import Understood

if TYPE_CHECKING:
    from ..engines import Engine

__all__ = ["verify"]


@grouped
def verify(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Checkpoint, ONNX file or TensorRT engine to compare with.")
    ],
    model: shared.Model,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Images, repeatable. Default: photographs that come with evovit, and generated ones.",
            rich_help_panel=shared.DATA,
        ),
    ] = None,
    *,
    understood: Understood,
    provider: shared.Provider = "auto",
    json: shared.Json = False,
) -> None:
    """Compare any two of checkpoint, ONNX file and TensorRT engine on the same images; exit 3 if they differ.

    Examples:
      evovit verify ckpt.pth model.onnx --images photos/
      evovit verify model.onnx model.engine
    """
    from ..classes.output_names import PLACES
    from ..engines.opening import OpenOptions, open_models
    from ..export import verify as compare_engines

    options = OpenOptions(provider, None, understood.options())
    with ExitStack() as stack:
        a, b = open_models(stack, [reference, model], options, ("logits", *PLACES), plain=True, note=note)
        batches, names = _read_images(images, a, b)
        report = compare_engines(a, b, batches, names=names)
    if json:
        print_json({"reference": printable(reference), "model": printable(model), **report.to_dict()})
    else:
        from ._parity import parity_table

        out().print(parity_table(report, f"{printable(model)} against {printable(reference)}"))
    if report.compared is None and not report.features:
        without = " and ".join(e.spec.name for e in (a, b) if e.spec.scores is None)
        note(f"{without} gives no class scores: only the kept sets were compared")
    elif not report.jaccard:
        shown = ",".join(report.features) or "logits"
        place = _place(a, b)
        sets = "groups of merged patches" if place == "sources" else "kept sets"
        note(f"{sets} were not compared; export with --outputs {shown},{place} to see them")
    elif not report.cut:
        note("how near a differing patch is to the cut can only be said with a checkpoint as the reference")
    reason = f" They differ in {'; '.join(report.differences)}." if report.differences else ""
    if not report.passed:
        raise ParityError(
            f"{printable(model)} is not the same function as {printable(reference)}: {report.failure}.{reason}"
        )
    if reason:
        note(f"the descriptions of the two files differ, but their outputs agree.{reason}")


def _place(*engines: Engine) -> str:
    """What says which tokens were left out or merged, as an output that both can be exported with."""
    from ..classes.output_names import PLACES
    from ..models.families import evolves, family_of

    names = [str((engine.spec.manifest or {}).get("family")) for engine in engines]
    given = [family_of(name).outputs for name in names if evolves(name)]
    return next((place for place in PLACES if given and all(place in outputs for outputs in given)), PLACES[0])


def _read_images(paths: list[Path] | None, a: Engine, b: Engine) -> tuple[tuple[Any, Any] | None, tuple[str, ...]]:
    """Images for each engine, each with its own transform and input type, and their names; None for the default ones."""
    if not paths:
        return None, ()
    import numpy as np

    from ..images.decode import load_image
    from ..images.folder import find_images
    from ..images.transform import preprocess
    from ..recipes import Transform

    left_out: list[str] = []
    files = find_images(paths, left_out)
    found = [load_image(path) for path in files]
    for text in left_out:
        warn(text)
    batches = []
    for engine in (a, b):
        transform = engine.spec.transform or Transform()
        batches.append(np.stack([preprocess(i, transform, engine.spec.image_size, engine.spec.input) for i in found]))
    return (batches[0], batches[1]), tuple(printable(Path(path.name)) for path in files)
