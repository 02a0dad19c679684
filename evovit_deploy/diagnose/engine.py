"""An engine, whose layers are fused: its own outputs, held against FP32, and the layers of what it was built from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import InputError, ModelFileError
from ..manifest import options_of
from ..storage.files import printable
from ..storage.missing import no_such_file
from .examine import Examined, Step, examine
from .report import Culprit, Diagnosis
from .sources import BothGraphs, from_checkpoint, from_file, prepare_images

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..engines import Engine

__all__ = ["examine_engine"]

Array = NDArray[Any]


def examine_engine(
    path: Path,
    against: str | Path | Checkpoint | None,
    images: Array | Sequence[Path] | None,
    names: tuple[str, ...],
    step: Step,
) -> Diagnosis:
    """Run an engine as it is, and what it was built from layer by layer.

    The gates are those of the engine's own outputs. Layers are those of the ONNX file or checkpoint, in the engine's precision,
    with a rounding after every operation; of an FP32 engine there are none.

    Raises:
        InputError: Nothing to hold it against, or something that takes other images.
        EngineError: It does not run on this machine.
    """
    from ..engines import Engine

    if against is None:
        against = path.with_suffix(".onnx")
        if path.is_file() and not against.is_file():
            raise InputError(
                f"{printable(path)} is an engine, whose layers are fused and cannot be looked at. Give the ONNX file or "
                "checkpoint that it was built from with --against, for its layers and as the reference."
            )
    with Engine.open(path) as engine:
        source = _source(engine, against, step)
        spec = engine.spec
        if (source.image_input, source.recipe.structure.image_size) != (spec.input, spec.image_size):
            raise InputError(
                f"{printable(path)} takes {spec.input} images of {spec.image_size} pixels, and {source.against} "
                f"{source.image_input} of {source.recipe.structure.image_size}. Give what it was built from."
            )
        shown, names = prepare_images(source, images, names)
        examined = _reference(source, shown, names) if spec.precision == "fp32" else examine(source, shown, names, step)
        step("running the engine", 0, 0)
        return _judged(engine, printable(path), source, examined, shown)


def _source(engine: Engine, against: str | Path | Checkpoint, step: Step) -> BothGraphs:
    """Both graphs of what the engine was built from."""
    from ..checkpoint import load_checkpoint
    from ..export.differences import recipe_of

    def say(text: str) -> None:
        step(text, 0, 0)

    if isinstance(against, (str, Path)) and Path(against).suffix.lower() == ".onnx":
        return from_file(Path(against), None, say)
    recipe, told = recipe_of(engine), engine.spec.manifest
    if isinstance(against, (str, Path)):
        size = None if recipe is None else recipe.structure.image_size
        if not Path(against).is_file():
            raise no_such_file(
                against, ModelFileError, "Give the ONNX file or checkpoint that the engine was built from."
            )
        against = load_checkpoint(against, recipe=recipe, image_size=size)
    if told is None:
        raise InputError(f"{engine.spec.name} does not say what it was built from. Give an ONNX file with --against.")
    options = dataclasses.replace(options_of(told), outputs=engine.spec.outputs)
    return from_checkpoint(against, engine.spec.precision, options, say)


def _reference(source: BothGraphs, images: Array, names: tuple[str, ...]) -> Examined:
    """The outputs of the FP32 graph, and no layers."""
    from ..export.parity import compare
    from ..export.proof import run_graph

    outputs = run_graph(source.reference, images, source.batch)
    parity = compare(outputs, outputs, source.recipe.tolerances["fp32"], names=names)
    return Examined(Diagnosis("", source.against, "fp32", names, (), (), (), {}, (), parity), outputs, {})


def _judged(engine: Engine, name: str, source: BothGraphs, examined: Examined, images: Array) -> Diagnosis:
    """The same with the gates of the engine's own outputs, and nobody to blame where they hold."""
    from ..export.parity import compare
    from ..export.proof import in_parts

    found = examined.diagnosis
    got = in_parts(engine, images)
    common = {output: value for output, value in got.items() if output in examined.outputs}
    if not common:
        raise InputError(
            f"{name} and {source.against} have no output in common: {', '.join(got)} and {', '.join(examined.outputs)}."
        )
    tolerance = source.recipe.tolerances[found.precision]
    expected = {output: value for output, value in examined.outputs.items() if output in common}
    parity = compare(expected, common, tolerance, names=found.images, scores=examined.scores)
    culprits = () if parity.passed else found.culprits
    if not parity.passed and not culprits:
        text = f"its own outputs differ, and a rounding after every operation does not explain it: {parity.failure}"
        culprits = (Culprit(name, None, "engine", text),)
    model = f"{name} ({engine.backend})"
    return dataclasses.replace(found, model=model, culprits=culprits, parity=parity)
