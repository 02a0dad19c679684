"""Proofs: an export against the checkpoint's own module, and any engine against any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..classes.output_names import PLACES, output_of
from ..engines.emulate import emulate_bf16, has_bf16, has_fp16
from ..engines.pytorch import module_of
from ..errors import InputError
from ..images.probes import probe_images
from ..images.transform import normalise
from ..models.recording import given_merges, given_selections, recorded_merges, recorded_scores
from ..recipes import Evolution, Recipe, Structure, Tolerance
from .differences import differences, recipe_of
from .gates import ParityReport
from .parity import compare
from .strict import StrictRun

if TYPE_CHECKING:
    import onnx

    from ..engines.base import Engine

__all__ = ["compare_onnx", "patch_kernels", "verify"]

Array = NDArray[Any]
Outputs = dict[str, Array]
# What became of the tokens -> the scores that decided it, and how to let a module decide the same.
RECORDED = {"kept": recorded_scores, "sources": recorded_merges}
GIVEN = {"kept": given_selections, "sources": given_merges}
AT_ONCE = 8  # images in one run, so that memory stays small


def compare_onnx(
    reference: Any,
    full: onnx.ModelProto,
    path: Path,
    images: Array,
    batch: int | None,
    tolerance: Tolerance,
    names: Sequence[str] = (),
) -> ParityReport:
    """Compare a module with an export of it.

    Args:
        reference: The FP32 PyTorch module, with class scores or features and, if it selects, ``kept`` outputs.
        full: The exported graph with all outputs, for those that the file does not give.
        path: The file that is kept, with the outputs that were asked for; these count.
        images: [n, ...] as both take them.
        batch: Static batch of the graph, or None; with a dynamic batch the first image also runs alone.
        tolerance: What to accept.
        names: Of the images.
    """
    from ..engines.onnxruntime import OrtEngine

    names = tuple(names) or tuple(f"image {number}" for number in range(1, len(images) + 1))
    expected, scores = run_module(reference, images)
    strict = _strict(reference, full, images, batch, tolerance, names, expected, scores) if has_fp16(full) else None
    emulated = has_bf16(full)
    file: Outputs = {}
    if not emulated:
        with OrtEngine(path, provider="cpu") as engine:
            file = in_parts(engine, images)
            alone = engine(images[:1]) if batch is None and len(images) > 1 else {}
        if alone:
            file = {name: np.concatenate([value, alone[name]]) for name, value in file.items()}
            expected, scores = _first_again(expected), _first_again(scores)
            names = (*names, f"{names[0]}, alone")
    missing = [name for name in expected if name not in file]
    if "logits" in missing and "probabilities" in file:
        missing.remove("logits")  # the file's own scores count
    rest: Outputs = {}
    if missing:
        rest = run_graph(emulate_bf16(full) if emulated else full, images, batch, missing, optimise=not emulated)
        rest = _first_again(rest) if len(names) > len(images) else rest
    got = {**rest, **file}
    shown = images if len(names) == len(images) else np.concatenate([images, images[:1]])
    settled = same_kept(reference, shown, expected, got)
    reports = [compare(expected, got, tolerance, names=names, scores=scores, settled=settled)]
    if {"logits", "probabilities"} <= set(file):
        own = {name: value for name, value in got.items() if name != "logits"}
        reports.append(compare(expected, own, tolerance, names=names, scores=scores, settled=settled))
    failed = next((report for report in reports if not report.passed), None)
    if strict is None:
        return failed or reports[0]
    if failed is not None:
        return dataclasses.replace(failed, overflows=strict.overflows)
    if strict.passed and (strict.largest_error or 0.0) <= (reports[0].largest_error or 0.0):
        return dataclasses.replace(reports[0], overflows=strict.overflows)
    return strict


def _strict(
    reference: Any,
    full: onnx.ModelProto,
    images: Array,
    batch: int | None,
    tolerance: Tolerance,
    names: tuple[str, ...],
    expected: Outputs,
    scores: Outputs,
) -> ParityReport:
    """As :func:`compare_onnx`, for the graph with a rounding to FP16 after every operation."""
    run = StrictRun(full, batch)
    got = {name: value for name, value in run(images).items() if name in expected}
    settled = same_kept(reference, images, expected, got)
    report = compare(expected, got, tolerance, names=names, scores=scores, settled=settled)
    return dataclasses.replace(report, overflows=run.overflows(names))


def verify(
    a: Engine,
    b: Engine,
    images: Array | tuple[Array, Array] | None = None,
    *,
    tolerance: Tolerance | None = None,
    names: Sequence[str] = (),
) -> ParityReport:
    """Compare any two engines on the same images; ``a`` is the reference.

    Args:
        a, b: Open engines of the same image size and class count.
        images: [n, 3, S, S] float32 normalised or [n, S, S, 3] uint8; a pair (for a, for b) when the two take different
            types. If None: the shipped photographs, seeded images, and hard ones (:func:`.probes.probe_images`).
        tolerance: What to accept; by default that of the less precise of the two, from the recipe of either.
        names: Of the images, for the report.

    Raises:
        InputError: Different image sizes or class counts, or no output that both give.
    """
    known = a.spec.num_classes and b.spec.num_classes
    for what in ("image_size", "num_classes") if known else ("image_size",):
        if getattr(a.spec, what) != getattr(b.spec, what):
            raise InputError(
                f"{a.spec.name} and {b.spec.name} cannot be compared: {what} {getattr(a.spec, what)} and {getattr(b.spec, what)}."
            )
    recipe = recipe_of(a) or recipe_of(b) or _plain_recipe(a)
    if images is None:
        probes = probe_images(recipe, kernels=patch_kernels(module_of(a)))
        names = probes.names
        inputs = (_as_input(probes.pixels, a, recipe), _as_input(probes.pixels, b, recipe))
    else:
        inputs = images if isinstance(images, tuple) else (images, images)
    order = ("fp32", "fp16", "bf16")
    worst = max((e.spec.precision for e in (a, b) if e.spec.precision in order), key=order.index, default="fp32")
    expected, scores = _run_engine(a, inputs[0])
    got, scores_of_b = _run_engine(b, inputs[1])
    settled = same_kept(module_of(a), inputs[0], expected, got)
    report = compare(
        expected, got, tolerance or recipe.tolerances[worst], names=names, scores=scores or scores_of_b, settled=settled
    )
    return dataclasses.replace(report, differences=differences(a, b))


def patch_kernels(module: Any) -> Array | None:
    """Return the kernels [C, 3, P, P] of a module's patch embedding; None where that is not one convolution."""
    weight = getattr(getattr(module, "patch_embed", None), "weight", None)
    if weight is None or weight.dim() != 4:
        return None
    kernels: Array = weight.detach().float().cpu().numpy()
    return kernels


def run_module(module: Any, images: Array) -> tuple[Outputs, Outputs]:
    """Run a PyTorch module of :mod:`evovit_deploy.models`: its outputs by name, and its scores by the name of the kept set."""
    return _recorded(module, module.output_names, lambda part: _run(module, part), images)


def _run(module: Any, images: Array) -> Outputs:
    import torch

    device = next(module.parameters()).device
    with torch.inference_mode():
        values = module(torch.from_numpy(images).to(device))
    return {name: value.cpu().numpy() for name, value in zip(module.output_names, values)}


def same_kept(module: Any, images: Array, expected: Outputs, got: Outputs) -> Outputs:
    """Return ``expected`` as it is when the reference keeps or merges what the other model kept or merged, image by image.

    A near-tie at the cut sends another patch through the blocks, which changes the logits by more than rounding does. With the
    other's patches, what is left of the difference is rounding again, and can be held to its limit.

    Args:
        module: The reference's PyTorch module; None where it is a file, and then ``expected`` is returned.
        images: [n, ...] as the module takes them.
        expected, got: Outputs of the reference and of the other model.
    """
    stages = [name for name in expected if output_of(name) in PLACES]
    if module is None or not stages or any(name not in got for name in stages):
        return expected
    given = GIVEN[output_of(stages[0])]
    if any(output_of(s) == "sources" and expected[s].max() != got[s].max() for s in stages):
        return expected  # another number of tokens, which the module cannot have
    differs = [any(not np.array_equal(expected[s][i], got[s][i]) for s in stages) for i in range(len(images))]
    rows = np.flatnonzero(differs)
    settled = {name: value.copy() for name, value in expected.items()}
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        with given(module, [got[stage][part] for stage in stages]):
            found = _run(module, images[part])
        for name, value in found.items():
            settled[name][part] = value
    return settled


def _run_engine(engine: Engine, images: Array) -> tuple[Outputs, Outputs]:
    """As :func:`run_module`; only a PyTorch engine tells its scores."""
    return _recorded(module_of(engine), engine.spec.outputs, engine, images)


def _recorded(
    module: Any, outputs: Sequence[str], run: Callable[[Array], Mapping[str, Array]], images: Array
) -> tuple[Outputs, Outputs]:
    stages = [name for name in outputs if output_of(name) in PLACES]
    recorded = RECORDED[output_of(stages[0])] if stages else recorded_scores
    with recorded(module if stages else None) as scores:
        found = in_parts(run, images)
    by_stage = {name: np.concatenate(scores[number :: len(stages)]) for number, name in enumerate(stages) if scores}
    return found, by_stage


def in_parts(run: Callable[[Array], Mapping[str, Array]], images: Array, batch: int | None = None) -> Outputs:
    """Run images a few at a time; a static ``batch`` is filled up with images from the start."""
    size, parts = batch or AT_ONCE, []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        padded = chunk if batch is None else images[(start + np.arange(batch)) % len(images)]
        parts.append({name: value[: len(chunk)] for name, value in run(padded).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run_graph(
    graph: onnx.ModelProto,
    images: Array,
    batch: int | None,
    names: Sequence[str] | None = None,
    *,
    optimise: bool = True,
) -> Outputs:
    """Run a graph on ONNX Runtime's CPU provider: its outputs by name, or those that are named."""
    from ..engines.ort.session import session

    runner = session(graph.SerializeToString(), "cpu", None, optimise=optimise)
    wanted, source = names or [output.name for output in runner.get_outputs()], runner.get_inputs()[0].name
    return in_parts(lambda part: dict(zip(wanted, runner.run(wanted, {source: part}))), images, batch)


def _first_again(outputs: Outputs) -> Outputs:
    """The same with the first image once more at the end."""
    return {name: np.concatenate([value, value[:1]]) for name, value in outputs.items()}


def _plain_recipe(engine: Engine) -> Recipe:
    """For two foreign files: their image size, the usual transform and tolerances."""
    structure = Structure(engine.spec.image_size, 1, 1, 1, 1)
    return Recipe("unknown", "deit", structure, Evolution((1.0,), (1.0,), stage_starts=()))


def _as_input(pixels: Array, engine: Engine, recipe: Recipe) -> Array:
    """uint8 pixels [n, S, S, 3] as the engine takes them."""
    if engine.spec.input == "uint8":
        return pixels
    return normalise(pixels, engine.spec.transform or recipe.transform)
