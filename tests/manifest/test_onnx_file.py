"""An ONNX file is opened in one place: whatever is wrong with it is said alike by everything that reads one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from evovit_deploy.building.onnx_facts import read_onnx
from evovit_deploy.describe import describe
from evovit_deploy.errors import ModelFileError
from evovit_deploy.manifest import is_ours, read_file
from evovit_deploy.manifest.onnx_file import load_onnx
from tests.engines.foreign_onnx import make_onnx

BROKEN = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\n": "Git LFS pointer",
    b"this is no protobuf": "not an ONNX",
    onnx.ModelProto(ir_version=9).SerializeToString(): "no graph",
}


@pytest.mark.parametrize("read", [load_onnx, read_file, read_onnx, describe])
@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file(read: Callable[[Path], Any], content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=BROKEN[content]):
        read(path)
    assert not is_ours(path)


@pytest.mark.parametrize("read", [load_onnx, read_file, read_onnx, describe])
def test_a_file_that_is_not_there(read: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read(tmp_path / "gone.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelFileError, match="is a folder"):
        read(tmp_path / "folder.onnx")


def test_weights_in_another_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(make_onnx(path))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:  # only raw data is moved
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert any(tensor.data_location == tensor.EXTERNAL for tensor in load_onnx(path).graph.initializer)
    for tensor in load_onnx(path, external=True).graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weights[tensor.name])
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelFileError, match=r"the weights of .*m\.onnx that lie in other files cannot be read"):
        load_onnx(path, external=True)
