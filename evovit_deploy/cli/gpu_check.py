"""`evovit gpu-check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..storage.files import printable
from . import _completion as complete
from . import _options as shared
from ._bench import command_line, measuring, print_report, print_table
from ._choices import Device, Precision
from ._console import err, note, print_json
from ._values import numbers, word, words

__all__ = ["gpu_check"]

MODELS, METHOD = "Models", "Method"


def gpu_check(
    device: Annotated[
        Device | None,
        typer.Option(
            metavar="cpu|cuda", help="cpu tries the same without a GPU. Default: cuda.", rich_help_panel=shared.RUN
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            autocompletion=complete.recipes,
            help="Recipes, with random weights; the first is measured too. Default: small, tiny, a LeViT, base.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(metavar="all|NAME,NAME", help="See `evovit list backends`.", rich_help_panel=shared.RUN),
    ] = "all",
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of the models. Default: fp16 on a GPU, fp32 on a CPU.", rich_help_panel=MODELS),
    ] = None,
    minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="End here; what is left is named.", rich_help_panel=METHOD)
    ] = 8.0,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="1,8,32",
            help="Batch sizes to measure. Default: 1,8,64,256, on a CPU 1,8.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Measure each model at least this long per batch.", rich_help_panel=METHOD
        ),
    ] = 2.0,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FOLDER", help="Where the result goes.", rich_help_panel=shared.OUTPUT),
    ] = Path("gpu-check"),
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Check every backend on this machine's GPU, and measure it: one command, no network, a folder to send back.

    Parity with FP32 and kept patches, batches, threads, streams, CUDA graphs and reloading; then latency beside the
    vanilla twin. Exit 3 if something does not hold, 4 without a GPU.

    Examples:
      evovit gpu-check
      evovit gpu-check --device cpu --models evo_deit_tiny_patch16_224 --backend onnxruntime,pytorch
    """
    from ..gpucheck import CheckOptions, check
    from ..gpucheck.jobs import MODELS
    from ..gpucheck.saving import check_output, draws, save, tables
    from ..machine.extras import install_advice

    given: dict[str, Any] = {} if precision is None else {"precision": word(precision)}
    options = CheckOptions(
        device=word(device) or "cuda",  # type: ignore[arg-type]
        models=MODELS if models is None else words(models),
        backends=() if backend == "all" else words(backend),
        minutes=minutes,
        batches=() if batch is None else numbers("--batch", batch),
        seconds=seconds,
        **given,
    )
    check_output(output, force=force)
    with measuring() as tell:
        result = check(options, command=command_line(), tell=tell)
    written = save(result, output, force=force)
    if json:
        print_json(result.to_dict())
    else:
        for table in tables(result):
            print_table(table)
        for report in result.reports:
            print_report(report, None)
    if not draws():
        note(f"there is no page, since what draws it is not installed. {install_advice('report')}")
    for path in written:
        err().print(f"wrote {printable(path)}", soft_wrap=True, markup=False)
    if result.interrupted:
        raise typer.Exit(130)
    if result.failed:
        names = ", ".join(f"{o.check} of {o.model} on {o.backend}" for o in result.failed)
        from ..errors import ParityError

        raise ParityError(f"{len(result.failed)} checks do not hold: {names}.")
