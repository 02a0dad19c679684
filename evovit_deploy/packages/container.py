"""A folder that a container is built from: the model, what to install, how to start it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError
from ..storage.missing import no_such_file
from .contents import Contents
from .options import FOLDER, GRPC_PORT, HTTP_PORT, ServiceOptions, image_name
from .own_wheel import make_wheel
from .requirements import PACKAGE, requirements
from .templates import render, write_package, written_by

__all__ = ["CONTAINERFILE", "container"]

CONTAINERFILE = "Containerfile"
USER = 10001  # a number, since Kubernetes checks runAsNonRoot by number


def container(
    contents: Contents,
    folder: Path,
    options: ServiceOptions,
    *,
    wheel: Path | None = None,
    template: Path | None = None,
    force: bool = False,
) -> list[Path]:
    """Write ``Containerfile``, ``requirements.txt``, ``.dockerignore``, a wheel of this package, and a copy of the model and what
    goes with it.

    Args:
        contents: From :func:`~.contents.read_contents`.
        folder: To build in; made if it is missing.
        options: How to serve. A plan always runs on a GPU.
        wheel: A wheel of this package to install; otherwise one is made of what is installed here.
        template: In place of the shipped ``Containerfile.j2``.
        force: Overwrite files of the same names.

    Returns:
        The files.

    Raises:
        InputError: Values that contradict each other, or a file that is not a wheel of this package.
        OutputError: Files are there and ``force`` is not given, or the folder cannot be written.
    """
    if wheel is not None:
        _check_wheel(wheel)
    with TemporaryDirectory(prefix="evovit-") as scratch:
        installed = make_wheel(Path(scratch)) if wheel is None else wheel
        return _write(contents, folder, options, installed, template, force)


def _write(
    contents: Contents, folder: Path, options: ServiceOptions, wheel: Path, template: Path | None, force: bool
) -> list[Path]:
    gpu = options.gpu or contents.gpu_only
    models = options.files(contents)
    copies = {**models, wheel.name: wheel}
    needed = requirements(wheel, gpu=gpu, engine=(contents.backend, contents.version) if contents.version else None)
    header = written_by("container")
    containerfile = render(
        "Containerfile.j2",
        template,
        header=header,
        python=".".join(map(str, sys.version_info[:2])),
        gpu=gpu,
        files=list(models),
        wheel=wheel.name,
        folder=FOLDER,
        user=USER,
        http_port=HTTP_PORT,
        grpc_port=GRPC_PORT,
        tag=image_name(options.model_name(contents.path)),
        arguments=json.dumps(options.arguments(contents)),
    )
    texts = {
        CONTAINERFILE: containerfile,
        "requirements.txt": "\n".join([f"# {header}: the versions that were installed where it ran.", *needed]) + "\n",
        ".dockerignore": "\n".join(["*", *(f"!{name}" for name in ("requirements.txt", *copies))]) + "\n",
    }
    return write_package(folder, texts, copies, force=force)


def _check_wheel(path: Path) -> None:
    if not path.exists():
        raise no_such_file(path, InputError)
    if path.suffix != ".whl" or not path.name.startswith(PACKAGE.replace("-", "_") + "-"):
        raise InputError(f"{path} is not a wheel of {PACKAGE}. Make one in a checkout: pip wheel --no-deps .")
    if not path.is_file():
        raise InputError(f"{path} is a folder; give the wheel in it.")
