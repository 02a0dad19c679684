"""A Ray Serve config file, for ``serve deploy``."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..cluster.options import RayOptions
from ..errors import InputError
from ..serve.settings import ServiceSettings
from .options import HTTP_PORT
from .templates import quoted, render, write_file, written_by

__all__ = ["ray_config"]


def ray_config(
    options: RayOptions,
    output: Path,
    *,
    name: str = "evovit",
    host: str = "127.0.0.1",
    port: int = HTTP_PORT,
    template: Path | None = None,
    force: bool = False,
) -> Path:
    """Write a config file of one application.

    Args:
        options: Its arguments; those that are not the defaults are written.
        output: The file.
        name: Of the application.
        host, port: Where Ray's proxies listen on every node.
        template: In place of the shipped ``ray.yaml.j2``.
        force: Overwrite the file.

    Raises:
        InputError: A path that is not absolute, or values that contradict each other.
        OutputError: The file is there and ``force`` is not given, or it cannot be written.
    """
    paths = [str(source.path) for source in options.sources()]
    paths += [path for path in (options.labels, options.token_file) if path is not None]
    for path in paths:
        if not path.startswith("/"):
            raise InputError(f"{path} is not an absolute path, and Ray opens it on other machines.")
    ServiceSettings(host=host, port=port)  # refuses what a service would
    defaults = {field.name: field.default for field in fields(RayOptions)}
    text = render(
        "ray.yaml.j2",
        template,
        header=written_by("ray"),
        file=output.name,
        name=name,
        host=host,
        http_port=port,
        arguments=[
            (name_, _scalar(getattr(options, name_)))
            for name_ in RayOptions.names()
            if defaults[name_] is MISSING or getattr(options, name_) != defaults[name_]
        ],
    )
    return write_file(output, text, force=force)


def _scalar(value: Any) -> str:
    """As YAML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)
