"""The `evovit` command: one file a subcommand; here they are registered and their errors turned into exit codes."""

from __future__ import annotations

import os
import sys

import typer

from ..errors import EvoVitError
from ._command import Command, Group
from ._console import err
from .bench_group import bench_app
from .build import build
from .doctor import doctor
from .eval import evaluate
from .explain import explain
from .export import export
from .inspect import inspect
from .list import list_
from .package import package
from .predict import predict
from .serve import serve
from .sweep import sweep
from .verify import verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="evovit",
    cls=Group,
    help="Evo-ViT (token evolution vision transformers): checkpoint to ONNX, proven; to a run, measured.",
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


for command in (inspect, export, verify, predict, evaluate, explain, sweep, build, serve, list_, doctor):
    app.command({evaluate: "eval", list_: "list"}.get(command), cls=Command)(command)  # these two are builtins
app.add_typer(bench_app)
app.add_typer(package, name="package")


def main() -> None:
    """Entry point: run a command; errors of this package become one paragraph on stderr and an exit code."""
    try:
        app(prog_name="evovit")
    except EvoVitError as error:
        if os.environ.get("EVOVIT_VERBOSE") == "1":
            err().print_exception()
        err().print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err().print("interrupted; nothing half-written was left behind.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our stdout, such as `head`, has gone
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("EVOVIT_VERBOSE") == "1":
            raise
        err().print(
            f"[bold red]internal error:[/] {_escape(f'{type(error).__name__}: {error}')}\n"
            "This is a bug. Run the same command as `evovit --verbose ...` and report the traceback.",
            soft_wrap=True,
        )
        sys.exit(1)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
