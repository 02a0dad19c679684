"""Checkpoint files to Python objects, without running anything that the file asks for.

A `.pth` file is a pickle. It is read by torch's restricted unpickler only, with a short allow-list:
`argparse.Namespace`, and inert stand-ins for what training scripts leave beside the weights (numpy scalars and arrays,
paths, the hyperparameters of Lightning, OmegaConf and MMEngine). The stand-ins call no foreign code, so not even numpy sees
bytes of the file.
"""

from __future__ import annotations

import argparse
import re
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..storage.missing import no_such_file

__all__ = ["Ignored", "read_file"]

_LFS = b"version https://git-lfs.github.com/spec"
_REFUSED = re.compile(r"GLOBAL ([\w.<>]+)")
# torch keeps its allow-list in one global; two threads would take each other's entries away.
_LOCK = threading.Lock()


class Ignored:
    """Stands for an object beside the weights whose value is not needed; takes any arguments and any state."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Ignored:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_STAND_INS = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"pathlib.{part}{name}" for part in ("", "_local.") for name in ("Path", "PosixPath", "WindowsPath")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Enum", "Float", "Integer", "Path", "String")),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "typing.Any"),
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str")),  # types that OmegaConf notes
    "mmengine.logging.history_buffer.HistoryBuffer",
)
# Dicts with attributes; torch fills only dicts of its own list.
_DICTS = (
    *(f"{package}.AttributeDict" for package in ("lightning.fabric.utilities.data", "lightning_fabric.utilities.data")),
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("lightning.pytorch", "pytorch_lightning")),
    *("mmengine.config.config.ConfigDict", "addict.addict.Dict"),
)


def read_file(path: Path) -> Any:
    """Return what a checkpoint file holds: usually a dict, of tensors or of dicts of tensors.

    Raises:
        CheckpointError: No such file, empty, truncated, not a checkpoint, or a pickle that asks for code to be run.
    """
    try:
        if path.is_dir():
            raise CheckpointError(
                f"{path} is a folder; give the checkpoint file in it, such as {path / 'checkpoint.pth'}."
            )
        if not path.exists():
            raise no_such_file(path, CheckpointError, "Give the path of a .pth or .safetensors checkpoint.")
        if not path.is_file():
            raise CheckpointError(f"{path} is not a regular file; copy the checkpoint to a file first.")
        size = path.stat().st_size
        with open(path, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}. Make the file readable.") from error
    return _reader(path, head, size)(path)


def _reader(path: Path, head: bytes, size: int) -> Callable[[Path], Any]:
    """Choose a reader by what the file holds, not by its name."""
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes); copy or download the checkpoint again.")
    if head.startswith(_LFS):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the checkpoint itself; fetch the file with `git lfs pull` and try again."
        )
    if head[:4] == b"PK\x03\x04":
        return _read_zip
    if head[:1] == b"\x80":  # every pickle of protocol 2 and later, so also torch's format from before 1.6
        return lambda p: _torch_load(p, mmap=False)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header >= 2:
        if header > size - 8:
            raise CheckpointError(
                f"{path} is truncated: its safetensors header has {header} bytes, and {size - 8} follow. Copy or "
                "download the checkpoint again."
            )
        return _read_safetensors
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} is not a safetensors file, or is damaged; copy or download the checkpoint again."
        )
    if head[:5].lower() in (b"<!doc", b"<html"):
        raise CheckpointError(
            f"{path} is a web page, not a checkpoint; download the file itself, not the page that links it."
        )
    if _is_text(head):
        raise CheckpointError(
            f"{path} is a text file, not a checkpoint; valid are files of torch.save (.pth) and .safetensors."
        )
    raise CheckpointError(
        f"{path} is not a checkpoint: it begins like neither torch.save nor safetensors. If it came from a download, "
        "it may be damaged or still compressed."
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a character cut at the end of what was read is fine
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    names = {record.filename.rsplit("/", 1)[-1] for record in records}
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript program, not a checkpoint; save the weights instead: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path} is a zip archive without weights of torch.save; unpack it and give the .pth file in it."
        )
    # A mapped record is taken as it lies in the file, so a compressed one would be read as numbers.
    return _torch_load(path, mmap=all(record.compress_type == zipfile.ZIP_STORED for record in records))


def _torch_load(path: Path, mmap: bool) -> Any:
    import torch

    allowed: list[Any] = [argparse.Namespace, *((Ignored, name) for name in _STAND_INS)]
    allowed += [(OrderedDict, name) for name in _DICTS]
    try:
        with _LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles before it rejects them; our error says more
            present = torch.serialization.get_safe_globals()
            with torch.serialization.safe_globals([entry for entry in allowed if entry not in present]):
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except MemoryError as error:
        raise CheckpointError(
            f"there is not enough memory to read {path}; close other programs and try again."
        ) from error
    except Exception as error:  # the unpickler meets damaged files with every kind of exception
        refused = _REFUSED.search(str(error))
        if refused:
            raise CheckpointError(
                f"{path} was refused and nothing in it was run: its pickle asks for `{refused[1]}`, which is not "
                "needed to "
                "hold weights. If you trust where the file is from, load it there and save the weights alone: "
                "torch.save({'model': model.state_dict()}, 'weights.pth')."
            ) from None
        if "unrecognized function" in str(error) or "Can only" in str(error):
            raise CheckpointError(
                f"{path} was refused and nothing in it was run: its pickle calls what is not needed to hold weights "
                f"({_reason(error)}). Save the weights alone: torch.save({{'model': model.state_dict()}}, "
                "'weights.pth')."
            ) from None
        if "Unsupported operand" in str(error):
            raise CheckpointError(
                f"{path} was refused and nothing in it was run: its pickle holds what torch.save does not write "
                f"({_reason(error)}), so it is damaged or not a checkpoint. Save the weights again with torch.save."
            ) from None
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path), device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or truncated and cannot be read as a checkpoint ({_reason(error)}); copy or download "
        "it again and compare the file size."
    )


def _reason(error: BaseException) -> str:
    """The telling part of a foreign message; torch puts advice around it that would have the file trusted."""
    text = str(error).strip()
    if "WeightsUnpickler error:" in text:
        text = text.rsplit("WeightsUnpickler error:", 1)[1].strip()
    elif text.startswith("Weights only load failed"):
        text = "its pickle cannot be read"
    lines = text.splitlines()
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(" .:")
