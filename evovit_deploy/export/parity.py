"""Parity: are two models the same function, by how much not, and do they keep the same tokens."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..preprocess import normalise
from ..recipes import Recipe, Tolerance
from .emulate import emulate_bf16, has_bf16

if TYPE_CHECKING:
    import onnx

    from ..engines.base import Engine

__all__ = ["ParityReport", "compare", "compare_onnx", "sample_images", "verify"]

Array = NDArray[Any]
Outputs = dict[str, Array]
DEFAULT_IMAGES = 4


@dataclass(frozen=True)
class ParityReport:
    """How two models compare.

    Attributes:
        images: Number of images.
        max_abs, mean_abs: Absolute difference of the logits.
        scale: Largest absolute reference logit, or 1 if that is larger; ``max_abs / scale`` is held against the tolerance.
        cosine: Smallest cosine similarity of an image's logits.
        top1: Share of images whose top-1 class agrees.
        jaccard: Stage name -> mean Jaccard index of the kept sets; empty when not both models give them.
        tolerance: What was accepted.
    """

    images: int
    max_abs: float
    mean_abs: float
    scale: float
    cosine: float
    top1: float
    jaccard: dict[str, float]
    tolerance: Tolerance

    @property
    def failure(self) -> str:
        """The first measure outside the tolerance, in words; empty when all hold."""
        t = self.tolerance
        if not np.isfinite(self.max_abs):
            return "the logits are not finite"
        if self.max_abs > t.max_abs * self.scale:
            return f"largest logit error {self.max_abs:.3g} is above {t.max_abs * self.scale:.3g}"
        if self.cosine < t.min_cosine:
            return f"smallest cosine {self.cosine:.6f} is below {t.min_cosine}"
        if self.top1 < t.min_top1:
            return f"top-1 agrees on {self.top1:.1%} of the images, below {t.min_top1:.1%}"
        for stage, value in self.jaccard.items():
            if value < t.min_jaccard:
                return f"{stage} has a Jaccard index of {value:.3f}, below {t.min_jaccard}"
        return ""

    @property
    def passed(self) -> bool:
        """Whether every measure is within the tolerance."""
        return not self.failure

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**dataclasses.asdict(self), "passed": self.passed, "failure": self.failure}


def compare(reference: Outputs, other: Outputs, tolerance: Tolerance) -> ParityReport:
    """Compare the outputs of two models on the same images.

    Args:
        reference, other: ``logits`` [n, classes] float32 and, for the kept sets, ``kept_1`` [n, K] int64, ...
        tolerance: What to accept.

    Raises:
        InputError: Different numbers of classes, or of kept tokens.
    """
    a, b = reference["logits"].astype(np.float64), other["logits"].astype(np.float64)
    if a.shape != b.shape:
        raise InputError(f"the models have {a.shape[1]} and {b.shape[1]} classes and cannot be compared.")
    with np.errstate(invalid="ignore"):  # not finite is reported as such
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = np.where(norms > 0, (a * b).sum(1) / np.where(norms > 0, norms, 1), (a == b).all(1))
    difference = np.abs(a - b)
    stages = [name for name in reference if name.startswith("kept_") and name in other]
    return ParityReport(
        images=len(a),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        scale=max(1.0, float(np.abs(a).max())),
        cosine=float(np.nan_to_num(cosine, nan=-1.0).min()),
        top1=float((a.argmax(1) == b.argmax(1)).mean()),
        jaccard={stage: jaccard(reference[stage], other[stage]) for stage in stages},
        tolerance=tolerance,
    )


def jaccard(a: Array, b: Array) -> float:
    """Return the mean over images of |A and B| / |A or B|, for index sets [n, K]."""
    values = []
    for row_a, row_b in zip(a.tolist(), b.tolist()):
        both, either = set(row_a) & set(row_b), set(row_a) | set(row_b)
        values.append(len(both) / len(either))
    return float(np.mean(values))


def sample_images(recipe: Recipe, image_input: str, count: int | None = None, seed: int = 0) -> Array:
    """Return seeded images with structure at several scales, so that some patches matter more than others.

    White noise makes all patches alike and every selection a near-tie, which no photograph does.

    Args:
        recipe: Image size and transform.
        image_input: ``float32`` gives [n, 3, S, S] normalised, ``uint8`` [n, S, S, 3].
        count: n; 4 when None.
        seed: Of the images.
    """
    from PIL import Image

    size, n = recipe.structure.image_size, count or DEFAULT_IMAGES
    random = np.random.default_rng(seed)
    pixels = np.zeros((n, size, size, 3))
    for cells in (2, 5, 11, 23):
        coarse = random.integers(0, 256, (n, cells, cells, 3), dtype=np.uint8)
        layers = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]
        pixels += np.stack(layers) / 4
    images = pixels.clip(0, 255).astype(np.uint8)
    if image_input == "uint8":
        return images
    return normalise(images, recipe.transform)


def run_module(module: Any, images: Array) -> Outputs:
    """Return the outputs of a PyTorch module of :mod:`evovit_deploy.models` by name."""
    import torch

    with torch.inference_mode():
        values = module(torch.from_numpy(images))
    return {name: value.numpy() for name, value in zip(module.output_names, values)}


def compare_onnx(
    reference: Any, full: onnx.ModelProto, path: Path, images: Array, batch: int | None, tolerance: Tolerance
) -> ParityReport:
    """Compare a module with an export of it.

    Args:
        reference: The FP32 PyTorch module, with ``logits`` and, if it selects, ``kept`` outputs.
        full: The exported graph with all outputs, for the kept sets.
        path: The file that is kept, with the outputs that were asked for; its logits count.
        images: [n, ...].
        batch: Static batch of the graph, or None; with a dynamic batch the first image also runs alone.
        tolerance: What to accept.
    """
    from ..engines.onnxruntime import OrtEngine, session

    if batch is not None:
        images = images[np.arange(batch) % len(images)]
    expected = run_module(reference, images)
    emulated = has_bf16(full)
    model = emulate_bf16(full) if emulated else full
    runner = session(model.SerializeToString(), "cpu", None, optimise=not emulated)
    names = [output.name for output in runner.get_outputs()]
    got: Outputs = dict(zip(names, runner.run(names, {"images": images})))
    del runner
    if emulated:
        return compare(expected, got, tolerance)
    with OrtEngine(path, provider="cpu") as engine:
        final = engine(images)
        alone = engine(images[:1]) if batch is None else {}
    got.update(final)
    report = compare(expected, got, tolerance)
    if "logits" not in alone or not report.passed:
        return report
    first = compare({name: value[:1] for name, value in expected.items()}, alone, tolerance)
    return report if first.passed else first


def verify(
    a: Engine, b: Engine, images: Array | tuple[Array, Array] | None = None, *, tolerance: Tolerance | None = None
) -> ParityReport:
    """Compare any two engines on the same images; ``a`` is the reference.

    Args:
        a, b: Open engines of the same image size and class count.
        images: [n, 3, S, S] float32 normalised or [n, S, S, 3] uint8; a pair (for a, for b) when the two take different
            types; seeded ones if None.
        tolerance: What to accept; by default that of the less precise of the two, from the recipe of either.

    Raises:
        InputError: Different image sizes or class counts.
    """
    for what in ("image_size", "num_classes"):
        if getattr(a.spec, what) != getattr(b.spec, what):
            raise InputError(
                f"{a.spec.name} and {b.spec.name} cannot be compared: {what} {getattr(a.spec, what)} and {getattr(b.spec, what)}."
            )
    recipe = _recipe(a, b)
    if images is None:
        pixels = sample_images(recipe, "uint8")
        inputs = (_as_input(pixels, a, recipe), _as_input(pixels, b, recipe))
    else:
        inputs = images if isinstance(images, tuple) else (images, images)
    order = ("fp32", "fp16", "bf16")
    worst = max((e.spec.precision for e in (a, b) if e.spec.precision in order), key=order.index, default="fp32")
    return compare(a(inputs[0]), b(inputs[1]), tolerance or recipe.tolerances[worst])


def _recipe(*engines: Engine) -> Recipe:
    """The recipe in the first manifest there is; for two foreign files, one with their sizes and the usual transform."""
    from ..recipes import Evolution, Structure

    for engine in engines:
        if engine.spec.manifest is not None:
            return Recipe.from_dict(engine.spec.manifest["recipe"], "manifest")
    size = engines[0].spec.image_size
    return Recipe("unknown", "deit", Structure(size, 1, 1, 1, 1), Evolution((1.0,), (1.0,), stage_starts=()))


def _as_input(pixels: Array, engine: Engine, recipe: Recipe) -> Array:
    """uint8 pixels [n, S, S, 3] as the engine takes them."""
    if engine.spec.input == "uint8":
        return pixels
    return normalise(pixels, engine.spec.transform or recipe.transform)
