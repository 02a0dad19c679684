"""Opening what is measured: model files, checkpoints exported on the spot, and the vanilla twin of either."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InputError
from ..recipes import Recipe

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..engines.base import Engine

__all__ = ["KINDS", "Opening", "add_label", "open_baseline", "open_checkpoint_engine", "recipe_of"]

KINDS = ("twin", "trimmed", "stock")
Step = Callable[[str], None]


def recipe_of(engine: Engine) -> Recipe | None:
    """The recipe in an exported file's manifest; None for a file of another tool."""
    manifest = engine.spec.manifest
    return None if manifest is None else Recipe.from_dict(manifest["recipe"], "manifest")


def open_checkpoint_engine(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    backend: str,
    provider: str,
    threads: int | None,
    step: Step = lambda text: None,
) -> Engine:
    """An engine for a checkpoint: exported to FP32 ONNX with a dynamic batch (and proven), or eager PyTorch.

    Args:
        checkpoint: From ``load_checkpoint`` or ``random_checkpoint``.
        folder: Where the ONNX file goes.
        backend: ``pytorch``; anything else is ONNX Runtime.
        provider, threads: As for ``Engine.open``.
        step: Called with a few words at the start of each step.
    """
    from ..engines import OrtEngine, TorchEngine
    from ..export import export_onnx

    if backend == "pytorch":
        return TorchEngine.from_checkpoint(checkpoint, provider=provider, threads=threads)
    number = len(list(folder.iterdir()))
    path = export_onnx(checkpoint, folder / f"model_{number}.onnx", step=step).path
    return OrtEngine(path, provider=provider, threads=threads)


def open_baseline(
    kind: Literal["twin", "trimmed", "stock"],
    like: Engine,
    recipe: Recipe,
    folder: Path,
    *,
    threads: int | None,
    step: Step = lambda text: None,
) -> Engine:
    """The vanilla twin of a model: same sizes, precision, input, batch, opset, backend and provider; random weights.

    Args:
        kind: ``twin`` folded, ``trimmed`` also without the last block's dead work, ``stock`` as timm ships it.
        like: The model it is compared with.
        recipe: Of that model.
        folder: Where an ONNX file goes.
        threads: As ``like`` was opened with.
        step: Called with a few words at the start of each step.
    """
    provider = "cuda" if like.device.startswith("cuda") else "cpu"
    if like.backend == "pytorch":
        return _eager_baseline(kind, like, recipe, provider, threads)
    if like.backend != "onnxruntime":
        raise InputError(
            f"the {kind} of a {like.backend} engine is not built here: export it with `evovit export --baseline NAME --format "
            f"engine` and give it with --baseline FILE, or use --baseline none."
        )
    from ..engines import OrtEngine
    from ..export import ExportOptions, export_baseline
    from ..models.evo_deit import ModelOptions

    manifest = like.spec.manifest
    if manifest is None:
        raise InputError(
            f"{like.spec.name} was not exported by evovit, so its twin is unknown. Use --baseline FILE or none."
        )
    options = ExportOptions(
        ModelOptions(
            precision=manifest["precision"],
            image_input=manifest["input"],
            outputs=_outputs(like),
            fold=manifest["folded"] or kind == "trimmed",
        ),
        batch=manifest["batch"],
        opset=manifest["opset"],
        prove=False,  # its weights are random and only its time is of interest
    )
    path = folder / f"baseline_{kind}.onnx"
    export_baseline(recipe, path, options, kind=kind, step=step)
    return OrtEngine(path, provider=provider, threads=threads)


def _eager_baseline(kind: str, like: Engine, recipe: Recipe, provider: str, threads: int | None) -> Engine:
    from ..engines import TorchEngine
    from ..models.evo_deit import ModelOptions
    from ..models.vanilla import build_stock, build_twin, vanilla_recipe

    vanilla, spec = vanilla_recipe(recipe), like.spec
    trim = kind == "trimmed"
    options = ModelOptions(spec.precision, spec.input, outputs=_outputs(like), trim=trim)  # type: ignore[arg-type]
    module = build_stock(vanilla, options) if kind == "stock" else build_twin(vanilla, options)
    return TorchEngine(module, vanilla, precision=spec.precision, provider=provider, threads=threads)


def _outputs(like: Engine) -> tuple[str, ...]:
    """The outputs that a vanilla model can give too; logits always."""
    return tuple(name for name in like.spec.outputs if name in ("logits", "probabilities")) or ("logits",)


def add_label(engines: dict[str, Engine], label: str, engine: Engine) -> str:
    """Add an engine under ``label``, numbered if that is taken; returns the label used."""
    number, unique = 2, label
    while unique in engines:
        unique, number = f"{label} #{number}", number + 1
    engines[unique] = engine
    return unique


class Opening:
    """Opens engines one by one and remembers what the baseline must resemble: the first.

    Attributes:
        engines: Label -> open engine, in order; closed when ``stack`` is.
        notes: What a reader of the report should know about them.
        step: Called with a few words while something takes time.
    """

    def __init__(self, stack: ExitStack, folder: Path, backend: str, provider: str, threads: int) -> None:
        self.stack, self.folder = stack, folder
        self.backend, self.provider, self.threads = backend, provider, threads
        self.engines: dict[str, Engine] = {}
        self.notes: list[str] = []
        self.first: tuple[Engine, Recipe | None] | None = None
        self.step: Callable[[str], None] = lambda text: None

    def add(self, label: str, engine: Engine, recipe: Recipe | None) -> str:
        """Keep an open engine until the end of the run."""
        self.stack.callback(engine.close)
        self.first = self.first or (engine, recipe)
        return add_label(self.engines, label, engine)

    def file(self, path: Path, recipe: str | None = None) -> str:
        """Open an ONNX file, a TensorRT engine or a checkpoint."""
        from ..engines import Engine
        from ..engines.base import backend_of

        if path.is_file() and backend_of(path) == "tensorrt":
            if self.backend != "auto":
                raise InputError(f"{path} is a TensorRT engine; --backend {self.backend} cannot run it. Leave it out.")
            engine = Engine.open(path, provider=self.provider)
            return self.add(path.stem, engine, recipe_of(engine))
        if not path.is_file() or path.suffix == ".onnx":
            if path.suffix == ".onnx" and self.backend == "pytorch":
                raise InputError(f"{path} is an ONNX file; --backend pytorch runs checkpoints. Leave --backend out.")
            engine = Engine.open(path, backend="onnxruntime", provider=self.provider, threads=self.threads)
            return self.add(path.stem, engine, recipe_of(engine))
        return self.checkpoint(path, recipe)

    def checkpoint(self, path: Path | None, recipe: str | None) -> str:
        """Open a checkpoint, or a recipe with random weights, through the export that `evovit export` does."""
        from ..checkpoint import load_checkpoint, random_checkpoint
        from ..recipes import load_recipe

        found = random_checkpoint(load_recipe(recipe or "")) if path is None else load_checkpoint(path, recipe=recipe)
        engine = open_checkpoint_engine(
            found, self.folder, backend=self.backend, provider=self.provider, threads=self.threads, step=self.step
        )
        label = found.recipe.name if path is None else path.stem
        self.notes.extend(f"{label}: {note}" for note in found.notes)
        return self.add(label, engine, found.recipe)

    def baseline(self, wanted: str) -> str | None:
        """Open the baseline and return its label; None without one."""
        assert self.first is not None
        engine, recipe = self.first
        if wanted == "none":
            return None
        if wanted != "auto" and wanted not in KINDS:
            if not Path(wanted).is_file():
                raise InputError(
                    f"--baseline {wanted}: no such file. Valid: auto, none, {', '.join(KINDS)}, or a model file."
                )
            return self.file(Path(wanted))
        tensorrt = engine.backend.startswith("tensorrt")
        if wanted == "auto" and (recipe is None or not recipe.family.startswith("evo_") or tensorrt):
            why = "was not exported by evovit, so its twin is unknown"
            if recipe is not None:
                why = (
                    "is a vanilla model itself"
                    if not recipe.family.startswith("evo_")
                    else "is an engine, whose twin is to be built"
                )
            self.notes.append(f"no baseline: {engine.spec.name} {why}; give one with --baseline FILE")
            return None
        if recipe is None:
            raise InputError(
                f"{engine.spec.name} was not exported by evovit, so its vanilla {wanted} is unknown. Give --baseline FILE "
                f"or none."
            )
        kind = "twin" if wanted == "auto" else wanted
        twin = open_baseline(kind, engine, recipe, self.folder, threads=self.threads, step=self.step)  # type: ignore[arg-type]
        label = self.add(f"{twin.spec.name} {kind}", twin, None)
        self.notes.append(f"{label} has random weights; latency does not depend on their values")
        if any(name.startswith("kept_") for name in engine.spec.outputs):
            self.notes.append(f"{engine.spec.name} also outputs the kept tokens, which a vanilla model does not have")
        return label
