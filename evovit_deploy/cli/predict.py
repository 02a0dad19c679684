"""`evovit predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..storage.files import exact, plain, printable
from . import _options as shared
from ._choices import ClassOrder
from ._console import err, note, out, print_json, progress, warn
from ._ray import predict_on_ray

if TYPE_CHECKING:
    from ..classes.labels import ClassNames
    from ..classes.scores import Ranking
    from ..cluster.predicting import Described
    from ..engines.base import Engine
    from ..images.batches import Failure
    from ..manifest.spec import ModelSpec


__all__ = ["predict"]


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
    recipe: shared.Recipe = None,
    num_heads: shared.NumHeads = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Run on a Ray cluster (extra `ray`); the same command resumes after an interruption.",
            rich_help_panel=shared.RAY,
        ),
    ] = False,
    ray_address: shared.RayAddress = "local",
    replicas: Annotated[
        int, typer.Option(min=1, metavar="N", help="Copies of the model.", rich_help_panel=shared.RAY)
    ] = 1,
    cpus: shared.Cpus = 1.0,
    gpus: shared.Gpus = 0.0,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Start over instead of resuming an interrupted run.", rich_help_panel=shared.RAY
        ),
    ] = False,
    json: shared.Json = False,
) -> None:
    """Classify images; exit 1 if any of them could not be classified.

    Examples:
      evovit predict model.onnx photo.jpg --labels labels.txt --top-k 3
      evovit predict ckpt.pth photos/ --accuracy --json
      evovit predict model.onnx photos/ --ray --replicas 4
    """
    from ..classes.folders import true_classes
    from ..classes.labels import ClassNames
    from ..engines import Engine
    from ..images.folder import SUFFIXES, find_images

    if model.suffix.lower() in SUFFIXES:
        raise InputError(f"{model} is an image. The model comes first: evovit predict MODEL.onnx {model}")
    if class_order is not ClassOrder.auto and not accuracy:
        raise InputError("--class-order goes with --accuracy.")
    left_out: list[str] = []
    paths = find_images(images, left_out)
    for text in left_out:
        warn(text)
    options: dict[str, Any] = {
        "backend": backend, "provider": provider, "threads": threads, "recipe": recipe, "num_heads": num_heads,
    }  # fmt: skip
    truth: dict[Path, int] | None = None
    classes = ClassNames(())

    def prepare(spec: ModelSpec) -> None:
        """Check what has to be right before anything is run."""
        nonlocal classes, truth
        spec.require_scores()
        classes = ClassNames.read(labels, spec.num_classes)
        if accuracy:
            truth, numbering = true_classes(paths, classes, class_order.order)
            for text in numbering.warnings:
                warn(text)
            for text in numbering.notes:
                note(text)
        _notes(spec)

    if not ray and ((ray_address, replicas, cpus, gpus) != ("local", 1, 1.0, 0.0) or restart):
        raise InputError("--ray-address, --replicas, --cpus, --gpus and --restart go with --ray.")
    opened: Engine | Described
    if ray:
        opened, best, failures = predict_on_ray(
            model, paths, options, top_k, batch, prepare,
            address=ray_address, replicas=replicas, resources=(cpus, gpus), restart=restart,
        )  # fmt: skip
    else:
        with Engine.open(model, **options) as opened:
            prepare(opened.spec)
            best, failures = _classify(opened, paths, opened.spec.batch or batch, top_k)
    spec = opened.spec
    results = [_result(path, best.get(path, []), failures.get(path), classes) for path in paths]
    score = None if truth is None else _score(results, [truth[path] for path in paths])
    if json:
        print_json(
            {
                "model": exact(model),
                "name": spec.name,
                "backend": opened.backend,
                "device": opened.device,
                "precision": spec.precision,
                "results": results,
                "failures": len(failures),
                "accuracy": score,
            }
        )
    else:
        _show(results, score)
    if failures:
        count = len(failures)
        err().print(f"{count} of {len(paths)} image{'s' * (len(paths) > 1)} could not be classified.")
        raise typer.Exit(1)


def _notes(spec: ModelSpec) -> None:
    if spec.transform is None:
        note(
            f"{spec.name} does not say how its images are prepared; the ImageNet transform is used (shorter side to "
            f"256/224 of {spec.image_size}, bicubic, centre crop, mean and std of ImageNet)."
        )
    if spec.scores not in ("logits", "probabilities"):
        note(
            f"{spec.name} has no output called logits; {spec.scores}, the only [B, classes] there is, is taken for them."
        )
    if spec.manifest is not None and spec.manifest.get("weights", {}).get("random"):
        note(f"{spec.name} has random weights: the classes mean nothing.")


def _classify(
    engine: Engine, paths: Sequence[Path], size: int, top_k: int
) -> tuple[dict[Path, Ranking], dict[Path, str]]:
    """The best classes of every image, and the reason for every image without; failures go to stderr as they come."""
    import numpy as np

    from ..classes.scores import NOT_FINITE, probabilities, ranking
    from ..images.batches import batches

    best: dict[Path, Ranking] = {}
    unread: list[Failure] = []
    failed: dict[Path, str] = {}

    bar = progress()

    def report(path: Path, reason: str) -> None:
        failed[path] = reason
        bar.console.print(f"{printable(path)}: {reason}", markup=False, soft_wrap=True)  # above the bar

    def report_unread() -> None:
        for failure in unread:
            report(failure.path, failure.reason)
        unread.clear()

    with bar:
        task = bar.add_task("classifying", total=len(paths))
        for done, images in batches(paths, engine.spec, size, failures=unread):
            for path, row in zip(done, probabilities(engine(images))):
                if np.isfinite(row).all():
                    best[path] = ranking(row, top_k)
                else:
                    report(path, NOT_FINITE)
            report_unread()
            bar.update(task, completed=len(best) + len(failed))
        report_unread()
    return best, failed


def _result(path: Path, best: Ranking, error: str | None, classes: ClassNames) -> dict[str, Any]:
    top = [{"class": i, "label": classes.label(i), "probability": p} for i, p in best]
    return {"path": exact(path), "top": top, "error": error}


def _score(results: Sequence[dict[str, Any]], truth: Sequence[int]) -> dict[str, Any]:
    right = [result["top"][0]["class"] == number for result, number in zip(results, truth) if result["top"]]
    return {"top1": sum(right) / len(right) if right else None, "correct": sum(right), "images": len(right)}


def _show(results: Sequence[dict[str, Any]], score: dict[str, Any] | None) -> None:
    console = out()
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
