"""The `evovit` command: one file a subcommand; here they are registered and their errors turned into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from ..errors import EngineError, EvoVitError
from ._command import Command
from ._console import err, fail
from ._root_group import RootGroup
from ._streams import guarded, prepare
from .bench_group import bench_app
from .build import build
from .diagnose import diagnose
from .doctor import doctor
from .eval import evaluate
from .explain import explain
from .export import export
from .gpu_check import gpu_check
from .inspect import inspect
from .list import list_
from .package import package
from .predict import predict
from .serve import serve
from .sweep import sweep
from .verify import verify

__all__ = ["app", "main"]

ABOUT = """Take a trained Evo-ViT, or token evolution on a ViT of timm, to ONNX, TensorRT, a benchmark and a service.

Examples:
  evovit export ckpt.pth -o model.onnx
  evovit bench model.onnx
  evovit predict model.onnx photo.jpg
"""

app = typer.Typer(
    name="evovit",
    cls=RootGroup,
    help=ABOUT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"evovit-deploy {version('evovit-deploy')}")
        raise typer.Exit


@app.callback()
def options(
    verbose: bool = typer.Option(False, "--verbose", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options that come before the command."""
    if verbose:
        os.environ["EVOVIT_VERBOSE"] = "1"


NAMES: dict[Callable[..., None], str] = {evaluate: "eval", list_: "list"}  # these two are builtins
for panel, commands in {
    "Convert": (export, verify, diagnose, build, inspect),
    "Measure": (evaluate, explain, sweep, gpu_check),
    "Use": (predict, serve),
    "Look up": (list_, doctor),
}.items():
    for command in commands:
        app.command(NAMES.get(command), cls=Command, rich_help_panel=panel)(command)
    if panel == "Measure":
        app.add_typer(bench_app, rich_help_panel=panel)
    if panel == "Use":
        app.add_typer(package, name="package", rich_help_panel=panel)


def main() -> None:
    """Run a command; errors of this package become one paragraph on stderr and an exit code."""
    prepare()
    try:
        with guarded():
            app(prog_name="evovit")
    except EvoVitError as error:
        if os.environ.get("EVOVIT_VERBOSE") == "1":
            err().print_exception()
        fail(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our stdout, such as `head`, has gone
        sys.exit(1)
    except Exception as error:
        if os.environ.get("EVOVIT_VERBOSE") == "1":
            raise
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing and missing != __package__.partition(".")[0]:  # an installation for serving only has no torch
            from ..machine.extras import distribution_of

            name = distribution_of(missing)
            fail(f"this command needs {name}, which is not installed. Install it: pip install {name}")
            sys.exit(EngineError.exit_code)
        fail(f"{type(error).__name__}: {error}", "internal error")
        err().print(
            "This is a bug. Run the same command as `evovit --verbose ...` and report the traceback.", soft_wrap=True
        )
        sys.exit(1)
