"""`export_baseline`: the vanilla twin through the same path as the model it is compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from ..models.families import family_of
from ..models.options import ModelOptions
from ..models.outputs import compared_outputs
from ..recipes import Recipe
from .onnx import STEPS, ExportOptions, ExportResult, PreparedExport, Step, check_output, write

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

__all__ = ["BaselineKind", "export_baseline", "prepare_baseline"]

BaselineKind = Literal["twin", "trimmed", "stock"]


def export_baseline(
    source: str | Recipe,
    path: str | Path,
    options: ExportOptions | None = None,
    *,
    kind: BaselineKind = "twin",
    seed: int = 0,
    weights: Checkpoint | None = None,
    force: bool = False,
    step: Step = lambda text: None,
) -> ExportResult:
    """Export a vanilla DeiT, LeViT or timm ViT for benchmarks, with seeded random weights or those of a timm ViT.

    Args:
        source: ``deit_small_patch16_224``, ``levit_128s_224``, ..., or the recipe whose twin is wanted (same sizes).
        path: ONNX file to write.
        options: As for :func:`.export_onnx`; the same ones make a fair comparison.
        kind: ``twin`` is timm's model with weights folded as those of the Evo model are; ``trimmed`` also leaves out what
            the last block computes for tokens that no output depends on; ``stock`` is timm's module as it ships.
        seed: Of the random weights.
        weights: Of a timm ViT, in place of random ones.
        force: As for :func:`.export_onnx`.
        step: As for :func:`.export_onnx`.

    Raises:
        RecipeError: An unknown name.
        ExportError, OutputError, ParityError: Nothing was written.
    """
    options = options or ExportOptions()
    if options.islands:
        raise InputError(
            "islands are for models of a checkpoint; a vanilla model is exported as it is. Leave --islands out."
        )
    path = Path(path)
    check_output(path, force=force)
    step(STEPS[0])
    prepared = prepare_baseline(source, options, kind=kind, seed=seed, weights=weights)
    return write(prepared, path, images=None, step=step)


def prepare_baseline(
    source: str | Recipe,
    options: ExportOptions,
    *,
    kind: BaselineKind = "twin",
    seed: int = 0,
    weights: Checkpoint | None = None,
) -> PreparedExport:
    """Build a vanilla module, and the stock one that it is proven against; arguments as for :func:`export_baseline`.

    Raises:
        RecipeError: An unknown name.
    """
    from ..models.vanilla import build_stock, build_twin, vanilla_recipe

    recipe = vanilla_recipe(source)
    options.check_attention(recipe)
    options = dataclasses.replace(
        options, model=dataclasses.replace(options.model, selection="auto", trim=kind == "trimmed")
    )
    build = build_stock if kind == "stock" else build_twin
    state = None if weights is None else weights.state
    module: Any = build(recipe, options.model, seed, state)
    shown = compared_outputs(options.model.outputs, recipe, family_of(recipe).vanilla.outputs)
    reference = build_stock(recipe, ModelOptions("fp32", options.model.image_input, outputs=shown), seed, state)
    origin: dict[str, Any] = {"source": f"random weights (seed {seed})", "random": True, "sha256": None}
    if weights is not None:
        origin = {"source": weights.source, "random": weights.random, "sha256": weights.sha256}
    return PreparedExport(module, reference, recipe, options, module.output_names, origin, kind)
