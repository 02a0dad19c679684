"""What is diagnosed: a checkpoint, an ONNX file, an engine; and the FP32 graph that it is held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .. import manifest as manifests
from ..errors import InputError, ModelFileError
from ..images.probes import Probes, probe_images
from ..manifest.onnx_file import load_onnx
from ..models.options import ModelOptions
from ..recipes import Evolution, Recipe, Structure
from ..storage.files import printable
from ..storage.missing import no_such_file

if TYPE_CHECKING:
    import onnx

    from ..checkpoint import Checkpoint
    from ..export.graph import AttentionForm

__all__ = ["BothGraphs", "from_checkpoint", "from_file", "open_source", "prepare_images"]

Array = NDArray[Any]


@dataclass(frozen=True)
class BothGraphs:
    """Both graphs, and how to feed them.

    Attributes:
        model, against: In words.
        reference: FP32 graph.
        half: The half-precision graph; None where it is the reference in FP16, or nobody asks for it.
        recipe: Transform and tolerances.
        image_input: ``float32`` or ``uint8``.
        batch: Static batch, or None.
        kernels: [C, 3, P, P] of the patch embedding, where known.
    """

    model: str
    against: str
    reference: onnx.ModelProto
    half: onnx.ModelProto | None
    recipe: Recipe
    image_input: str
    batch: int | None
    kernels: Array | None = None

    def probes(self) -> Probes:
        """Return the images that a proof runs on."""
        return probe_images(self.recipe, kernels=self.kernels)


def read_images(paths: Sequence[Path], recipe: Recipe) -> Probes:
    """Read image files as the recipe's transform says.

    Raises:
        InputError: One that is no image.
    """
    import numpy as np

    from ..images.decode import load_image
    from ..images.transform import preprocess

    size = recipe.structure.image_size
    pixels = np.stack([preprocess(load_image(path), recipe.transform, size, "uint8") for path in paths])
    return Probes(tuple(path.name for path in paths), pixels)


def prepare_images(
    source: BothGraphs, images: Array | Sequence[Path] | None, names: tuple[str, ...]
) -> tuple[Array, tuple[str, ...]]:
    """Return images as the graphs take them, and their names.

    Args:
        source: Both graphs.
        images: As they take them already; or files; None is what a proof runs on.
        names: Of images that are an array.
    """
    import numpy as np

    if not isinstance(images, np.ndarray):
        probes = source.probes() if images is None else read_images(images, source.recipe)
        return probes.prepared(source.recipe.transform, source.image_input), probes.names
    return images, names or tuple(f"image {number}" for number in range(1, len(images) + 1))


def open_source(
    model: str | Path | Checkpoint,
    against: str | Path | Checkpoint | None,
    precision: str,
    options: ModelOptions | None,
    step: Callable[[str], None],
) -> BothGraphs:
    """Read or export both graphs.

    Raises:
        InputError: ``against`` with a checkpoint, which is its own reference.
        ModelFileError, CheckpointError: A model that cannot be read.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not path.is_file():
            raise no_such_file(path, ModelFileError, "Give a checkpoint or an ONNX file.")
        if path.suffix.lower() == ".onnx":
            if isinstance(against, (str, Path)) and not Path(against).is_file():
                raise no_such_file(against, ModelFileError, "Give a checkpoint or an ONNX file.")
            return _with_equal_outputs(from_file(path, against, step))
        from ..checkpoint import load_checkpoint

        model = load_checkpoint(path)
    if against is not None:
        raise InputError(
            "a checkpoint is its own FP32 reference. Leave --against out, or give an ONNX file and --against it."
        )
    return from_checkpoint(model, precision, options or ModelOptions(), step)


def _with_equal_outputs(graphs: BothGraphs) -> BothGraphs:
    """Leave both graphs the outputs that they have in common: a file may have been exported with fewer than its reference.

    Raises:
        InputError: They have none in common.
    """
    if graphs.half is None:
        return graphs
    both = [graphs.reference.graph, graphs.half.graph]
    common = {output.name for output in both[0].output} & {output.name for output in both[1].output}
    if not common:
        listed = " and ".join(", ".join(output.name for output in graph.output) for graph in both)
        raise InputError(f"{graphs.model} and {graphs.against} have no output in common: {listed}.")
    for graph in both:
        for number in reversed(range(len(graph.output))):
            if graph.output[number].name not in common:
                del graph.output[number]
    return graphs


def from_checkpoint(
    checkpoint: Checkpoint, precision: str, options: ModelOptions, step: Callable[[str], None]
) -> BothGraphs:
    """Export a checkpoint in FP32, and in half precision if that is the precision."""
    reference, kernels = _export(checkpoint, dataclasses.replace(options, precision="fp32"), step)
    half = None
    if precision != "fp32":
        half, _ = _export(checkpoint, dataclasses.replace(options, precision=precision), step)  # type: ignore[arg-type]
    name = printable(checkpoint.path) if checkpoint.path else checkpoint.recipe.name
    return BothGraphs(
        f"{name} in {precision}",
        f"{name} in fp32",
        reference,
        half,
        checkpoint.recipe,
        options.image_input,
        None,
        kernels,
    )


def _export(
    checkpoint: Checkpoint,
    options: ModelOptions,
    step: Callable[[str], None],
    batch: int | None = None,
    opset: int | None = None,
    attention: AttentionForm = "plain",
) -> tuple[onnx.ModelProto, Array | None]:
    """The graph of a checkpoint with all outputs that a proof compares, and the kernels of its patch embedding."""
    from ..export.onnx import ExportOptions, graph_of
    from ..export.proof import patch_kernels
    from ..models.build import build_model, resolve_options
    from ..models.families import family_of
    from ..models.outputs import compared_outputs

    step(f"exporting in {options.precision}")
    looked_at = compared_outputs(options.outputs, checkpoint.recipe, family_of(checkpoint.recipe).outputs)
    options = resolve_options(dataclasses.replace(options, outputs=looked_at), checkpoint.recipe)
    module: Any = build_model(checkpoint.recipe, checkpoint.state, options)
    return graph_of(module, ExportOptions(options, batch=batch, opset=opset, attention=attention)), patch_kernels(
        module
    )


def from_file(path: Path, against: str | Path | Checkpoint | None, step: Callable[[str], None]) -> BothGraphs:
    """Read an ONNX file and what it is held against; see :func:`open_source`."""
    from onnx import TensorProto

    from ..engines.emulate import has_bf16, has_fp16, widen

    step("reading")
    half = load_onnx(path, external=True)
    manifest = manifests.read({entry.key: entry.value for entry in half.metadata_props}, str(path))
    recipe = Recipe.from_dict(manifest["recipe"], "manifest") if manifest else _plain_recipe(half, path)
    source = half.graph.input[0]
    image_input = "uint8" if source.type.tensor_type.elem_type == TensorProto.UINT8 else "float32"
    batch = source.type.tensor_type.shape.dim[0].dim_value or None
    is_half = has_bf16(half) or has_fp16(half)
    name = printable(path)
    if against is None:
        if is_half:
            return BothGraphs(
                name, f"{name} in fp32, with its weights as stored", widen(half), half, recipe, image_input, batch
            )
        return BothGraphs(f"{name} in fp16", name, half, None, recipe, image_input, batch)
    if not is_half:
        raise InputError(
            f"{name} is FP32 itself: there is no half precision to hold against a file. Leave --against out."
        )
    if isinstance(against, (str, Path)):
        other = Path(against)
        if other.suffix.lower() == ".onnx":
            reference = load_onnx(other, external=True)
            if has_bf16(reference) or has_fp16(reference):
                raise InputError(f"{printable(other)} is not FP32. Export the reference with --precision fp32.")
            return BothGraphs(name, printable(other), reference, half, recipe, image_input, batch)
        from ..checkpoint import load_checkpoint

        against = load_checkpoint(other, recipe=recipe, image_size=recipe.structure.image_size)
    if manifest is None:
        raise InputError(
            f"{name} was not exported by evovit, so its nodes are not a checkpoint's. Give an ONNX file in FP32."
        )
    options = dataclasses.replace(manifests.options_of(manifest), precision="fp32")
    reference, kernels = _export(against, options, step, batch, manifest["opset"], manifest.get("attention", "plain"))
    told = printable(against.path) if against.path else against.recipe.name
    return BothGraphs(name, f"{told} in fp32", reference, half, recipe, image_input, batch, kernels)


def _plain_recipe(model: onnx.ModelProto, path: Path) -> Recipe:
    """For a file of another tool: its image size, the usual transform and tolerances."""
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] if model.graph.input else []
    if len(dims) != 4 or 3 not in (dims[1], dims[3]) or not dims[2]:
        raise ModelFileError(
            f"{printable(path)}: its first input is not one image batch ([B, 3, S, S] float32 or [B, S, S, 3] uint8)."
        )
    return Recipe("unknown", "deit", Structure(dims[2], 1, 1, 1, 1), Evolution((1.0,), (1.0,), stage_starts=()))
