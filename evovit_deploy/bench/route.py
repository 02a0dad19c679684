"""The way from a model to a running engine. Both sides of a comparison take the same one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classes.output_names import is_feature
from ..engines.registry import Backend, backend_of, find, names
from ..errors import InputError
from ..recipes import PRECISIONS
from ..suggest import did_you_mean
from .costs import open_measured
from .settings import STOCK_COMPILED
from .subject import Opened
from .work import Work, module_work, onnx_work

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..engines import TorchEngine
    from ..engines.base import Engine
    from ..engines.trt.options import BuildOptions
    from ..export import ExportOptions
    from ..recipes import Recipe

__all__ = ["Route"]

Step = Callable[[str], None]


@dataclass(frozen=True)
class Route:
    """How models are exported, built and opened.

    Attributes:
        backend: One of :func:`~evovit_deploy.engines.registry.names`; ``auto`` is ONNX Runtime, or what a file's suffix says.
        provider: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads.
        batches: Batch sizes of the run; a TensorRT engine is built for these.
        first_batches: Batch sizes to call an engine with as soon as it is open; all of ``batches`` count if None.
        export: Precision, input, outputs, selection, folding, opset, attention; None is the export's own default.
        build: Options of a TensorRT build; None is made from ``batches``.
    """

    backend: str = "auto"
    provider: str = "auto"
    threads: int | None = None
    batches: tuple[int, ...] = (1, 8)
    first_batches: tuple[int, ...] | None = None
    export: ExportOptions | None = None
    build: BuildOptions | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.backend not in names():
            hint = did_you_mean(self.backend, names())
            raise InputError(f"backend {self.backend!r} is unknown; valid: {', '.join(names())}.{hint}")

    @property
    def row(self) -> Backend | None:
        """What runs models; None for ``auto``."""
        return find(self.backend)

    @property
    def through_onnx(self) -> bool:
        """Whether a checkpoint is exported to ONNX for it."""
        return self.row is None or self.row.kind == "onnx" or self.row.built

    @property
    def on_gpu(self) -> bool:
        """Whether what is made of a checkpoint will run on a GPU: asked for, or found where it is not said."""
        if self.provider != "auto":
            return self.provider == "cuda"
        row = self.row or find("onnxruntime")
        if row is None or "cpu" not in row.providers:
            return row is not None
        import torch  # a checkpoint needs it anyway, and most machines without a GPU are told by it

        return torch.cuda.is_available() and "cuda" in row.here(_probes())[0]

    @property
    def in_torch(self) -> bool:
        """Whether models run as PyTorch modules rather than exported."""
        return self.row is not None and (self.row.kind, self.row.module) == ("checkpoint", "torch")

    def like(self, engine: Engine, path: Path | None = None) -> Route:
        """Return the route that made an engine, for its twin.

        Args:
            engine: Open engine.
            path: Its file, if it is a TensorRT engine.

        Raises:
            InputError: It was not made by evovit, so the route is unknown.
        """
        from ..export import ExportOptions
        from ..models.options import ModelOptions

        row = find(engine.backend)
        backend = engine.backend if row is None else row.name
        provider = "cuda" if engine.device.startswith("cuda") else "cpu"
        route = dataclasses.replace(self, backend=backend, provider=provider)
        spec, manifest = engine.spec, engine.spec.manifest
        scores = () if spec.headless else ("logits", "probabilities")
        outputs = tuple(name for name in spec.outputs if name in scores or is_feature(name))
        if not route.through_onnx:  # made of a module, so its twin is too
            known = (self.export or ExportOptions()).model.precision
            precision = spec.precision if spec.precision in PRECISIONS else known
            return dataclasses.replace(
                route,
                export=ExportOptions(ModelOptions(precision, spec.input, outputs=outputs)),  # type: ignore[arg-type]
            )
        if manifest is None:
            raise InputError(
                f"{spec.name} was not exported by evovit, so its twin is unknown. Use --baseline FILE or none."
            )
        model = ModelOptions(
            precision=manifest["precision"],
            image_input=manifest["input"],
            outputs=outputs,
            fold=manifest["folded"],
        )
        attention = manifest.get("attention", "plain")
        export = ExportOptions(model, batch=manifest["batch"], opset=manifest["opset"], attention=attention)
        return dataclasses.replace(route, export=export, build=_build_options(path))

    def open_file(self, path: Path) -> Opened:
        """Open an ONNX file (through a build, if the backend is TensorRT) or an engine.

        Raises:
            InputError: A file that this backend does not run.
            EngineError: No GPU, or an engine of another GPU or version.
        """
        from ..engines import Engine
        from ..storage.files import sha256

        here, owner = self.row, backend_of(path)
        is_onnx = owner is not None and owner.kind == "onnx"
        if here is not None and here.built and is_onnx and path.is_file():
            found = self._built(path)
        elif here is not None and owner is not None and path.suffix.lower() not in here.suffixes and path.is_file():
            raise InputError(
                f"{path} is for {owner.name}, and --backend {here.name} runs {here.files}. Leave --backend out."
            )
        else:
            found = self._opened(
                lambda: Engine.open(path, backend=self.backend, provider=self.provider, threads=self.threads),
                here or owner,
            )
        found = found.knowing(model_sha256=sha256(path))
        return _with_work(found, onnx_work(path) if is_onnx else None)

    def open_checkpoint(self, checkpoint: Checkpoint, folder: Path, step: Step = lambda text: None) -> Opened:
        """Export a checkpoint (and prove it) and open that, or run its module in PyTorch.

        Args:
            checkpoint: From ``load_checkpoint`` or ``random_checkpoint``.
            folder: Where files go.
            step: Called with a few words at the start of each step.
        """
        from ..engines import TorchEngine
        from ..export import ExportOptions, export_onnx

        options = self.export or ExportOptions()
        if not self.through_onnx:
            return self._module(
                lambda: TorchEngine.from_checkpoint(checkpoint, options.model, **self._in_torch()), folder, step
            )
        return self.open_file(export_onnx(checkpoint, _new_file(folder, "model"), options, step=step).path)

    def open_vanilla(
        self,
        kind: str,
        recipe: Recipe,
        folder: Path,
        step: Step = lambda text: None,
        weights: Checkpoint | None = None,
    ) -> Opened:
        """Return the vanilla twin of a recipe, with random weights unless there are any: same sizes, and this very route.

        Args:
            kind: ``twin`` folded, ``trimmed`` also without the last block's dead work, ``stock`` as timm ships it,
                ``stock-compiled`` that module through torch.compile in place of this route, on the same device.
            recipe: Of the model it is compared with.
            folder: Where files go.
            step: Called with a few words at the start of each step.
            weights: Of the timm ViT that the model was made from.
        """
        from ..export import ExportOptions, export_baseline

        if kind == STOCK_COMPILED:
            compiled = dataclasses.replace(self, backend="compile")
            return compiled.open_vanilla("stock", recipe, folder, step, weights)
        options = self.export or ExportOptions()
        if kind == "trimmed":
            options = dataclasses.replace(options, model=dataclasses.replace(options.model, fold=True))
        if not self.through_onnx:
            return self._module(lambda: self._vanilla_module(kind, recipe, options, weights), folder, step)
        # Only its time is of interest, so nothing is proven.
        unproven = dataclasses.replace(options, prove=False)
        path = _new_file(folder, f"baseline_{kind}")
        export_baseline(recipe, path, unproven, kind=kind, weights=weights, step=step)  # type: ignore[arg-type]
        return self.open_file(path)

    def _vanilla_module(
        self, kind: str, recipe: Recipe, options: ExportOptions, weights: Checkpoint | None
    ) -> TorchEngine:
        from ..engines import TorchEngine
        from ..models.vanilla import build_stock, build_twin, vanilla_recipe

        vanilla = vanilla_recipe(recipe)
        model = dataclasses.replace(options.model, trim=kind == "trimmed", selection="auto")
        build = build_stock if kind == "stock" else build_twin
        module = build(vanilla, model, state=None if weights is None else weights.state)
        return TorchEngine(module, vanilla, precision=model.precision, **self._in_torch())

    def _in_torch(self) -> dict[str, Any]:
        """How a module is opened: to run it, or where a backend that makes its file of it will run that."""
        provider = self.provider if self.row is not None and "cuda" in self.row.providers else "cpu"
        return {"provider": provider, "threads": self.threads, "compiled": self.backend == "compile"}

    def _module(self, open_engine: Callable[[], TorchEngine], folder: Path, step: Step) -> Opened:
        """Run a module in PyTorch, or make the backend's file of it and open that."""
        row = self.row
        if row is None or self.in_torch:
            found = self._opened(open_engine, row)
            return _with_work(found, module_work(found.engine))  # type: ignore[arg-type]
        if row.make is None:
            raise InputError(
                f"--backend {row.name} runs {row.files} and makes none from a checkpoint. Give such a file, or another backend."
            )
        path = _new_file(folder, "model", row.suffixes[0])
        step(f"making a file for {row.name}")
        with open_engine() as module:
            row.make(module, path, self.batches)
            work = module_work(module)
        return _with_work(self.open_file(path), work)

    def _built(self, path: Path) -> Opened:
        """Build a TensorRT engine from an ONNX file, and open that; it lies nowhere that a user would find it."""
        from tempfile import TemporaryDirectory

        from ..building.build import build_engine
        from ..engines import Engine
        from ..engines.trt.api import find_gpu
        from ..engines.trt.options import BuildOptions
        from ..errors import EngineError

        if find_gpu() is None:
            raise EngineError(
                f"--backend {self.backend} measures on an NVIDIA GPU, and none was found. Use --backend onnxruntime, or see "
                f"`evovit doctor`."
            )
        batches = {"min_batch": min(self.batches), "opt_batch": max(self.batches), "max_batch": max(self.batches)}
        if self.export is not None and self.export.batch is not None:
            batches = {"batch": self.export.batch}
        options = self.build or BuildOptions(target=self.backend, **batches)  # type: ignore[arg-type]
        with TemporaryDirectory(prefix="evovit-") as folder:
            plan = build_engine(path, Path(folder) / f"{path.stem}.engine", options, prove=False).path
            return self._opened(lambda: Engine.open(plan), self.row)

    def _opened(self, open_engine: Callable[[], Engine], row: Backend | None) -> Opened:
        if row is not None:
            with contextlib.suppress(Exception):  # opening says better what is missing
                import_module(row.module)  # its import belongs to no model
        return open_measured(open_engine, self.first_batches or self.batches)


@functools.cache  # it takes seconds, and a run of every backend asks for each
def _probes() -> dict[str, dict[str, Any]]:
    from ..machine.probing import probe_imports

    return probe_imports()


def _build_options(path: Path | None) -> BuildOptions | None:
    """The options that a plan was built with, from the manifest beside it."""
    from ..engines.trt.engine_manifest import read_manifest
    from ..engines.trt.options import BuildOptions

    document: dict[str, Any] | None = None if path is None else read_manifest(path)
    if document is None:
        return None
    options = document["options"]
    return BuildOptions(
        **{**options, "target": document["flavour"], "compute_capabilities": tuple(options["compute_capabilities"])}
    )


def _new_file(folder: Path, stem: str, suffix: str = ".onnx") -> Path:
    return folder / f"{stem}_{len(list(folder.iterdir()))}{suffix}"


def _with_work(found: Opened, work: Work | None) -> Opened:
    return found if work is None else found.knowing(**vars(work))
