"""`evovit predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..storage.files import plain, printable
from . import _options as shared
from ._choices import ClassOrder
from ._console import err, note, out, print_json, progress, warn
from ._groups import grouped
from ._ray import predict_on_ray
from ._shared import Understood

if TYPE_CHECKING:
    from ..evaluate.predict import Predictions, PredictOptions, Ran
    from ..manifest.spec import ModelSpec


__all__ = ["predict"]


@dataclass(frozen=True)
class OnRay:
    """Where it runs, if not in this process."""

    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Run on a Ray cluster (extra `ray`); the same command resumes after an interruption.",
            rich_help_panel=shared.RAY,
        ),
    ] = False
    ray_address: shared.RayAddress = "local"
    replicas: Annotated[
        int, typer.Option(min=1, metavar="N", help="Copies of the model.", rich_help_panel=shared.RAY)
    ] = 1
    cpus: shared.Cpus = 1.0
    gpus: shared.Gpus = 0.0
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Start over instead of resuming an interrupted run.", rich_help_panel=shared.RAY
        ),
    ] = False

    def runner(self) -> Callable[..., Ran] | None:
        """Return what classifies on Ray; None for this process.

        Raises:
            InputError: Options of Ray without it.
        """
        if self.ray:
            return self._run
        if self != OnRay():
            raise InputError("--ray-address, --replicas, --cpus, --gpus and --restart go with --ray.")
        return None

    def _run(
        self, model: Path, paths: Sequence[Path], options: PredictOptions, prepare: Callable[[ModelSpec], None]
    ) -> Ran:
        from ..evaluate.predict import Ran

        found, best, failures = predict_on_ray(
            model, paths, dict(options.open), options.top_k, options.batch_size, prepare,
            address=self.ray_address, replicas=self.replicas, resources=(self.cpus, self.gpus), restart=self.restart,
        )  # fmt: skip
        return Ran(found.spec, found.backend, found.device, best, failures)


@grouped
def predict(
    model: shared.Model,
    images: shared.Images,
    labels: shared.Labels = None,
    accuracy: Annotated[
        bool,
        typer.Option(
            "--accuracy",
            help="Report top-1 accuracy: the images lie in folders named by class.",
            rich_help_panel=shared.DATA,
        ),
    ] = False,
    class_order: shared.ClassOrder = ClassOrder.auto,
    top_k: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Classes per image, shown for a single image and with --json.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = 5,
    batch: shared.Batch = 32,
    provider: shared.Provider = "auto",
    backend: shared.Backend = "auto",
    threads: shared.Threads = None,
    *,
    understood: Understood,
    on_ray: OnRay,
    json: shared.Json = False,
) -> None:
    """Classify images; exit 1 if any of them could not be classified.

    Examples:
      evovit predict model.onnx photo.jpg --labels labels.txt --top-k 3
      evovit predict ckpt.pth photos/ --accuracy --json
      evovit predict model.onnx photos/ --ray --replicas 4
    """
    from ..evaluate.predict import PredictOptions, predict_files

    how = understood.options()
    options = PredictOptions(
        {
            "backend": backend, "provider": provider, "threads": threads, "recipe": how.recipe,
            "num_heads": how.num_heads, "ema": how.ema, "keep": how.keep, "schedule": how.schedule, "r": how.r,
            "timm": how.from_timm, "method": how.method,
        },
        labels,
        accuracy,
        class_order.order,
        top_k,
        batch,
    )  # fmt: skip
    run, bar = on_ray.runner(), progress()
    task = bar.add_task("classifying", total=None)
    with bar if run is None else nullcontext():  # what runs on Ray shows a bar of its own
        result = predict_files(
            model,
            images,
            options,
            run=run,
            note=lambda text: note(text, bar),
            warn=lambda text: warn(text, bar),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            on_failure=lambda path, why: bar.console.print(f"{printable(path)}: {why}", markup=False, soft_wrap=True),
        )
    if json:
        print_json(result.to_dict())
    else:
        _show(result)
    if result.failures:
        count = len(result.paths)
        err().print(f"{result.failures} of {count} image{'s' * (count > 1)} could not be classified.")
        raise typer.Exit(1)


def _show(found: Predictions) -> None:
    console, results, score = out(), found.results, found.score
    good = [result for result in results if result["top"]]

    def label(entry: dict[str, Any]) -> str:
        return plain(entry["label"]) if entry["label"] is not None else f"class {entry['class']}"

    if len(results) == 1 and good:
        from rich.table import Table
        from rich.text import Text

        console.print(good[0]["path"], markup=False, soft_wrap=True)
        named = good[0]["top"][0]["label"] is not None
        table = Table()
        table.add_column("class", justify="right")
        if named:
            table.add_column("label")
        table.add_column("probability", justify="right")
        for entry in good[0]["top"]:
            label_cell = [Text(entry["label"])] if named else []
            table.add_row(str(entry["class"]), *label_cell, f"{entry['probability']:.2%}")
        console.print(table)
    else:
        shown = [plain(result["path"]) for result in good]
        paths = max(map(len, shown), default=0)
        names = max((len(label(result["top"][0])) for result in good), default=0)
        for path, result in zip(shown, good):
            best = result["top"][0]
            console.print(
                f"{path:<{paths}}  {label(best):<{names}}  {best['probability']:7.2%}",
                markup=False,
                soft_wrap=True,
            )
    if score is not None and score["images"]:
        console.print(f"top-1 accuracy {score['top1']:.2%} ({score['correct']} of {score['images']} images)")
