"""The part of commands that run on Ray."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, ModelFileError
from ..storage.files import printable
from ..storage.missing import no_such_file
from ._console import err, progress

if TYPE_CHECKING:
    from ..classes.scores import Ranking
    from ..cluster.predicting import Described, Row
    from ..manifest.spec import ModelSpec
    from ..serve.settings import ModelSource, ServiceSettings

__all__ = ["predict_on_ray", "serve_on_ray", "stdout_is_for_results"]


def serve_on_ray(
    sources: list[ModelSource],
    settings: ServiceSettings,
    labels: Path | None,
    address: str,
    replicas: str,
    resources: tuple[float, float],
    on_ready: Callable[[dict[str, str]], None],
) -> None:
    """Run `evovit serve --ray`: the settings of the command as options of a Ray Serve application, until a signal comes."""
    from dataclasses import fields

    from ..cluster.cluster import run
    from ..cluster.options import RayOptions
    from ..serve.limits import Limits

    if settings.certificate is not None:
        raise InputError("--tls-certificate does not go with --ray; put TLS before Ray, or in its own http_options.")
    if settings.control:
        raise InputError("--allow-control does not go with --ray: it would reach one replica. Deploy again instead.")
    cpus, gpus = resources
    options = RayOptions(
        models=tuple(f"{source.name}:{source.version}={source.path.absolute()}" for source in sources),
        labels=None if labels is None else str(labels.absolute()),
        threads=settings.threads,
        num_cpus=cpus,
        num_gpus=gpus,
        provider=settings.provider,
        fixed_batch=settings.fixed_batch,
        **{field.name: getattr(settings, field.name) for field in fields(Limits)},
        **read_replicas(replicas),
    )
    with stdout_is_for_results():
        run(options, host=settings.host, port=settings.port, address=address, token=settings.token, on_ready=on_ready)


def read_replicas(text: str) -> dict[str, Any]:
    """Read ``3`` or ``1-4`` as options.

    Raises:
        InputError: Neither.
    """
    found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    if found is None:
        raise InputError(f"--replicas is {text!r}; give a number, or MIN-MAX such as 1-4.")
    if found[2] is None:
        return {"num_replicas": int(found[1])}
    return {"min_replicas": int(found[1]), "max_replicas": int(found[2])}


def predict_on_ray(
    model: Path,
    paths: Sequence[Path],
    options: dict[str, Any],
    top_k: int,
    batch_size: int,
    prepare: Callable[[ModelSpec], None],
    *,
    address: str,
    replicas: int,
    resources: tuple[float, float],
    restart: bool,
) -> tuple[Described, dict[Path, Ranking], dict[Path, str]]:
    """Run `evovit predict --ray` and return the model, the best classes of every image, and the reason for every image
    without.
    """
    from ..cluster.cluster import LOCAL, connected
    from ..cluster.predicting import Job, describe, predict

    if address == LOCAL and not model.is_file():
        raise no_such_file(model, ModelFileError)
    job = Job(model.absolute(), top_k, batch_size, options, *resources)
    best: dict[Path, Ranking] = {}
    failed: dict[Path, str] = {}
    resumed = 0
    with stdout_is_for_results(), connected(address), progress() as bar:
        task = bar.add_task("starting", total=len(paths))

        def update(rows: list[tuple[Path, Row]], earlier: bool) -> None:
            nonlocal resumed
            for path, (ranking, error) in rows:
                if error is None:
                    best[path] = ranking
                else:
                    failed[path] = error
                    err().print(f"{printable(path)}: {error}", markup=False, soft_wrap=True)
            if earlier:
                resumed = len(best) + len(failed)
            bar.update(task, completed=len(best) + len(failed))

        try:
            described = describe(job)
            prepare(described.spec)
            bar.update(task, description="classifying")
            predict(job, described, paths, replicas=replicas, restart=restart, on_rows=update)
        except KeyboardInterrupt:
            bar.stop()
            done = len(best) + len(failed)
            err().print(
                f"interrupted after {done} images, which are kept: the same command resumes there.", soft_wrap=True
            )
            raise typer.Exit(130) from None
    if resumed:
        err().print(f"note: {resumed} of {len(paths)} images were done by an earlier run.", style="dim", soft_wrap=True)
    return described, best, failed


def stdout_is_for_results() -> contextlib.AbstractContextManager[object]:
    """What Ray has to say, such as that a worker died, goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr)
