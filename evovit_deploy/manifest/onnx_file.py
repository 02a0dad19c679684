"""Reading an ONNX file: the one place where it is opened, and where what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelFileError, translate
from ..storage.missing import no_such_file

if TYPE_CHECKING:
    import onnx

__all__ = ["load_onnx"]

FIX = "Export it again, or copy it again and compare the file size."


def load_onnx(path: Path, *, fix: str = FIX, external: bool = False) -> onnx.ModelProto:
    """Read an ONNX file as it is; nothing in it is run.

    Args:
        path: The file.
        fix: What to do about a broken one, a sentence.
        external: Also read weights that lie in other files beside it.

    Raises:
        ModelFileError: No such file, not an ONNX model, or weights that are missing.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; give the .onnx file in it.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise no_such_file(path, ModelFileError, "Give a checkpoint, an ONNX file or an engine.") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}. Make the file readable.") from error
    if not data:
        raise ModelFileError(f"{path} is empty (0 bytes). {fix}")
    if data.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{path} is a Git LFS pointer, not the model; fetch the file with `git lfs pull`.")
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's classes differ between its versions
        raise ModelFileError(f"{path} is not an ONNX file, or is damaged or truncated. {fix}") from error
    if not model.ir_version or not model.opset_import or not (model.graph.node or model.graph.output):
        raise ModelFileError(f"{path} is not an ONNX model: it has no graph or no opset. {fix}")
    if external:
        with translate(ModelFileError, f"the weights of {path} that lie in other files cannot be read"):
            load_external_data_for_model(model, str(path.parent))
    return model
