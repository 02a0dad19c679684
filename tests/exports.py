"""What the ONNX exporter makes of a module is made once a session, and shared by all workers.

Most tests that export ask for one of a few models, and nearly all the time goes into torch's exporter. Only that step is
shared, module in, graph out: building the module, proving the file, its manifest and its place are each test's own, so a command
line that exports still does. Two modules are the same if their classes, their attributes and every byte of their tensors are;
where that cannot be told, the exporter runs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from filelock import FileLock

LARGE = 30_000_000  # parameters; nothing so large is exported twice
FOLDER = "TESTS_SHARED_EXPORTS"  # in the environment, for processes that a test starts


def install() -> None:
    """Let this process share what the exporter makes, in the folder that the environment names."""
    from evovit_deploy.export import graph
    from evovit_deploy.export import onnx as module

    folder = os.environ.get(FOLDER)
    if folder and not isinstance(graph.to_onnx, SharedExports):
        graph.to_onnx = module.to_onnx = SharedExports(Path(folder), graph.to_onnx)  # type: ignore[assignment]


def once(path: Path, make: Callable[[], object]) -> Path:
    """Let the worker that comes first make a file of the session, and the others wait for it."""
    path.parent.mkdir(exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            make()
    return path


class UnknownAttribute(Exception):
    """An attribute that does not say in its text what it is."""


class SharedExports:
    """``to_onnx`` with a folder for what it made.

    Args:
        folder: The same one for all workers of a session.
        to_onnx: The one of the package.
    """

    def __init__(self, folder: Path, to_onnx: Callable[..., onnx.ModelProto]) -> None:
        self.folder, self.to_onnx = folder, to_onnx
        folder.mkdir(exist_ok=True)

    def __call__(
        self, module: Any, example: Any, output_names: Sequence[str], *, dynamic: bool, opset: int, attention: Any
    ) -> onnx.ModelProto:
        asked = {"dynamic": dynamic, "opset": opset, "attention": attention}
        try:
            request = f"{tuple(example.shape)} {example.dtype} {tuple(output_names)} {dynamic} {opset} {attention}"
            key = hashlib.sha256(f"{request}\n{fingerprint(module)}".encode()).hexdigest()
        except UnknownAttribute:
            return self.to_onnx(module, example, output_names, **asked)
        path = self.folder / f"{key}.onnx"
        with FileLock(path.with_suffix(".lock")):
            if path.exists():
                return onnx.load(path)
            model = self.to_onnx(module, example, output_names, **asked)
            partial = path.with_suffix(".partial")
            onnx.save(model, partial)
            partial.rename(path)
        return model


def fingerprint(module: Any) -> str:
    """All that decides what a module computes, as text.

    Raises:
        UnknownAttribute: There is something in it whose text does not say what it is, or it is large.
    """
    if sum(tensor.numel() for tensor in module.parameters()) > LARGE:
        raise UnknownAttribute
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return structure(module) + "".join(
        f"\n{name} {value.dtype} {tuple(value.shape)} {digest(value)}" for name, value in tensors.items()
    )


def structure(module: Any) -> str:
    """All that decides what a module computes but for the values of its tensors, as text.

    Raises:
        UnknownAttribute: There is something in it whose text does not say what it is.
    """
    from torch import nn

    lines, elsewhere = (
        [],
        {*vars(nn.Module()), "ops"} - {"training"},
    )  # tensors are below; the exporter sets the operators
    for name, part in module.named_modules():
        own = {key: value for key, value in vars(part).items() if key not in elsewhere}
        lines.append(f"{name} {type(part).__module__}.{type(part).__qualname__} {sorted(own.items())!r}")
    text = "\n".join(lines)
    if any(sign in text for sign in (" at 0x", "<locals>", "tensor(")):
        raise UnknownAttribute
    return text


def digest(tensor: Any) -> str:
    import torch

    plain = tensor.detach().contiguous().reshape(-1)
    return hashlib.sha256(plain.view(torch.uint8).numpy()).hexdigest() if plain.numel() else ""
