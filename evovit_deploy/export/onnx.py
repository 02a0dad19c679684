"""`export_onnx`: a checkpoint becomes an ONNX file that was proven on the spot, or no file at all."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import manifest as manifests
from ..classes.output_names import output_of
from ..errors import ExportError, InputError, ParityError, translate
from ..models.families import family_of
from ..models.options import ModelOptions
from ..models.outputs import compared_outputs
from ..storage.files import atomic, sha256, write_json
from ..storage.ownership import check_replaceable, is_manifest
from .graph import drop_outputs, to_onnx
from .options import ExportOptions

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

    from ..checkpoint import Checkpoint
    from ..recipes import Recipe
    from .gates import ParityReport
    from .mending import Mended

__all__ = [
    "ExportOptions",
    "ExportResult",
    "PreparedExport",
    "check_output",
    "default_name",
    "export_onnx",
    "prepare",
    "write",
]

Step = Callable[[str], None]
STEPS = ("building the model", "exporting to ONNX", "running the reference", "proving parity")


@dataclass(frozen=True)
class ExportResult:
    """What was written: ``path``, the JSON beside it, the manifest, and the parity report (None if not proven)."""

    path: Path
    json_path: Path
    manifest: dict[str, Any]
    parity: ParityReport | None


def export_onnx(
    checkpoint: Checkpoint,
    path: str | Path,
    options: ExportOptions | None = None,
    *,
    images: np.ndarray[Any, Any] | None = None,
    force: bool = False,
    step: Step = lambda text: None,
) -> ExportResult:
    """Export a checkpoint of any family to ``path`` and prove it against the FP32 PyTorch module.

    The proof runs on ONNX Runtime before the file gets its name; the kept sets are compared also when they are not among
    the outputs. The reference is the plain module: unfolded, untrimmed, FP32.

    Args:
        checkpoint: From ``load_checkpoint`` or ``random_checkpoint``.
        path: ONNX file to write; a JSON with the same stem is written beside it.
        options: See :class:`ExportOptions`.
        images: [n, 3, S, S] float32 normalised (or [n, S, S, 3] uint8 for uint8 input) to prove with; by default the shipped
            photographs, seeded images, and hard ones (white, black, noise, saturated, high contrast, a large token).
        force: Replace files that evovit did not write; its own are replaced always.
        step: Called with a few words at the start of each of :data:`STEPS`.

    Raises:
        ExportError, OutputError: Nothing was written.
        ParityError: The outputs differ by more than the recipe's tolerance; nothing was written.
    """
    options = options or ExportOptions()
    if options.islands and options.model.precision == "fp32":
        raise InputError("islands stay FP32 in a half-precision export, and this one is FP32. Add --precision fp16.")
    if options.islands == "auto" and options.model.precision != "fp16":
        raise InputError("--islands auto is for FP16: BF16 has the range of FP32. Name the islands, or leave it out.")
    path = Path(path)
    check_output(path, force=force)
    step(STEPS[0])
    return write(prepare(checkpoint, options), path, images=images, step=step)


@dataclass(frozen=True)
class PreparedExport:
    """What is exported, built and not traced yet.

    Attributes:
        module: Eval-mode module; it may have more outputs than are asked for.
        reference: The plain FP32 module that it has to equal.
        recipe: Of both.
        options: As asked for, with the selection pattern that is used.
        names: Outputs that are asked for, in order.
        weights: ``source``, ``random``, ``sha256``, for the manifest.
        variant: ``twin``, ``trimmed`` or ``stock`` for a vanilla model, else empty.
        whole: Makes ``module`` in FP32, which islands take their weights from; None where there are no islands.
    """

    module: Any
    reference: Any
    recipe: Recipe
    options: ExportOptions
    names: tuple[str, ...]
    weights: dict[str, Any]
    variant: str = ""
    whole: Callable[[], Any] | None = None

    def manifest(self, opset: int | None) -> dict[str, Any]:
        """Return the manifest of an ONNX file with this opset; None for a file that is not ONNX."""
        return manifests.make(
            self.recipe,
            self.options.model,
            batch=self.options.batch,
            opset=opset,
            outputs=self.names,
            weights=self.weights,
            variant=self.variant,
            attention=self.options.attention,
        )


def prepare(checkpoint: Checkpoint, options: ExportOptions) -> PreparedExport:
    """Build the module of a checkpoint, and the one that it is proven against.

    Raises:
        InputError: Options that the model does not have.
    """
    from ..models.build import build_model, resolve_options

    options.check_attention(checkpoint.recipe)
    options = dataclasses.replace(options, model=resolve_options(options.model, checkpoint.recipe))
    wanted = options.model.outputs
    family = family_of(checkpoint.recipe)
    looked_at = compared_outputs(wanted, checkpoint.recipe, family.outputs)
    everything = dataclasses.replace(options.model, outputs=tuple(dict.fromkeys((*wanted, *looked_at))))
    module: Any = build_model(checkpoint.recipe, checkpoint.state, everything)
    plain = ModelOptions("fp32", options.model.image_input, family.plain_pattern, looked_at, False, False)
    reference = build_model(checkpoint.recipe, checkpoint.state, plain)
    names = tuple(name for output in wanted for name in module.output_names if output_of(name) == output)
    weights = {"source": checkpoint.source, "random": checkpoint.random, "sha256": checkpoint.sha256}
    whole = partial(build_model, checkpoint.recipe, checkpoint.state, dataclasses.replace(everything, precision="fp32"))
    return PreparedExport(module, reference, checkpoint.recipe, options, names, weights, whole=whole)


def check_output(path: Path, *, force: bool = False) -> None:
    """Raise now what writing an ONNX file and the JSON beside it would raise after the work.

    Raises:
        InputError: A name that the JSON needs.
        OutputError: They cannot be written, or would replace files that evovit did not write.
    """
    described = path.with_suffix(".json")
    if described == path:
        raise InputError(f"{path}: an ONNX file cannot end in .json; name it, say, {path.with_suffix('.onnx')}.")
    check_replaceable({path: manifests.is_ours, described: is_manifest("onnx")}, force=force)


def write(prepared: PreparedExport, path: Path, *, images: np.ndarray[Any, Any] | None, step: Step) -> ExportResult:
    """Export a module, prove it against its reference, and only then give the files their names."""
    from ..images.probes import probe_images
    from .cost import cost_on_cpu
    from .proof import compare_onnx, patch_kernels

    module, recipe, options = prepared.module, prepared.recipe, prepared.options
    manifest = prepared.manifest(options.opset_version)
    step(STEPS[1])
    full = graph_of(module, options)
    named: tuple[str, ...] = ()
    cost: dict[str, float] = {}
    if images is None and (options.prove or options.islands):
        probes = probe_images(recipe, kernels=patch_kernels(prepared.reference))
        images, named = probes.prepared(recipe.transform, options.model.image_input), probes.names
    if options.islands:
        assert images is not None
        mended = _mend(prepared, full, images, named, step)
        if mended.islands:
            step("timing the islands")
            cost = cost_on_cpu(full, mended.graph, images, options.batch)
        full = mended.graph
        manifest = {**manifest, "islands": list(mended.islands), "scales": mended.scales}
    manifests.attach(full, manifest)
    final = drop_outputs(full, prepared.names)
    with translate(ExportError, "the exported graph is not valid ONNX"):
        _check(final)
    json_path = path.with_suffix(".json")
    with atomic(path) as temporary:
        with translate(ExportError, f"writing {path}", ValueError):
            temporary.write_bytes(final.SerializeToString())
        report: ParityReport | None = None
        if options.prove:
            assert images is not None
            step(STEPS[2])
            step(STEPS[3])
            tolerance = recipe.tolerances[options.model.precision]
            report = compare_onnx(prepared.reference, full, temporary, images, options.batch, tolerance, named)
            if report.undefined:
                raise ParityError(_undefined(report))
            if not report.passed:
                fp16 = options.model.precision == "fp16"
                mending = "`evovit diagnose` shows where; --islands auto may mend it. " if fp16 else ""
                raise ParityError(
                    f"the exported model is not the checkpoint's: {report.failure}. Nothing was written. {mending}Try another "
                    f"--precision or --selection, or set [tolerances.{options.model.precision}] in your own recipe."
                )
        document = {**manifest, "sha256": sha256(temporary), "parity": report.to_dict() if report else None}
        document |= {"islands_cost": cost} if cost else {}
        write_json(json_path, document)
    return ExportResult(path, json_path, document, report)


def _undefined(report: ParityReport) -> str:
    return (
        f"the checkpoint cannot be proven: {report.failure}. Nothing was written. No precision mends that: look at the weights, "
        "and at these images in the model's own code; --no-verify exports without a proof."
    )


def _mend(
    prepared: PreparedExport, full: onnx.ModelProto, images: np.ndarray[Any, Any], names: Sequence[str], step: Step
) -> Mended:
    """The graph with the islands that the options ask for."""
    from .mending import Mender

    assert prepared.whole is not None, "who prepares without it refuses islands"
    options, named = prepared.options, names or [f"image {number}" for number in range(1, len(images) + 1)]
    tolerance = prepared.recipe.tolerances[options.model.precision]
    mender = Mender(
        prepared.whole(),
        prepared.reference,
        lambda module: graph_of(module, options),
        family_of(prepared.recipe).seams,
        images,
        named,
        options.batch,
        tolerance,
        step,
    )
    return mender.automatic(full) if options.islands == "auto" else mender.named(full, options.islands)


def graph_of(module: Any, options: ExportOptions) -> onnx.ModelProto:
    """Return the ONNX graph of a module, with all of its outputs."""
    return to_onnx(
        module,
        example_batch(module, options.batch or 2),
        module.output_names,
        dynamic=options.batch is None,
        opset=options.opset_version,
        attention=options.attention,
    )


def example_batch(module: Any, batch: int) -> torch.Tensor:
    """Return a batch of the module's input type, for tracing."""
    import torch

    size = module.structure.image_size
    if module.image_input == "uint8":
        return torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    return torch.zeros(batch, 3, size, size)


def default_name(recipe: Recipe, options: ExportOptions) -> str:
    """Return a file name that says model, size and precision actually used, e.g. ``evo_deit_small_patch16_224_fp16.onnx``."""
    size = str(recipe.structure.image_size)
    parts = [recipe.name] + ([] if size in re.split(r"[._]", recipe.name) else [size]) + [options.model.precision]
    if options.model.image_input == "uint8":
        parts.append("uint8")
    if options.batch is not None:
        parts.append(f"b{options.batch}")
    return "_".join(parts) + ".onnx"


def _check(model: onnx.ModelProto) -> None:
    import onnx

    onnx.checker.check_model(model, full_check=False)
