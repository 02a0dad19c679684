from __future__ import annotations

import os
import pathlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.errors import CheckpointError

from .forms import refused, saved, training_checkpoint


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.pth", "no such file")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder; give the checkpoint file")


def test_empty_file(path: Path) -> None:
    path.touch()
    refused(path, r"is empty \(0 bytes\)")


def test_text_file(path: Path) -> None:
    path.write_text("Größe: not weights\n" * 100, encoding="utf-8")
    refused(path, r"is a text file.*\.safetensors")


def test_web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Sign in</html>")
    refused(path, "is a web page.*download the file itself")


def test_git_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    refused(path, "Git LFS pointer.*git lfs pull")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_noise(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x01\xff" + np.random.default_rng(0).bytes(4096))
    refused(path, "is not a")


def test_unreadable_file(state: dict[str, Tensor], path: Path) -> None:
    saved(state, path).chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    refused(path, "cannot read .*ermission")


def test_other_zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "zip archive without weights")


def test_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", b"")
        archive.writestr("model/data.pkl", b"")
    refused(path, "TorchScript program.*state_dict")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated(state: dict[str, Tensor], path: Path, form: str, share: float) -> None:
    if form == "safetensors":
        save_file(state, path)
    else:
        saved(training_checkpoint(state), path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: max(9, int(len(data) * share))])
    refused(path, "truncated|damaged")


def test_one_byte_short(state: dict[str, Tensor], path: Path) -> None:
    saved(state, path)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "damaged or truncated")


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path, function: Any) -> None:
        self.marker, self.function = marker, function

    def __reduce__(self) -> Any:
        if self.function is eval:
            return eval, (f"open({str(self.marker)!r}, 'w')",)
        if self.function is os.system:
            return os.system, (f"touch {self.marker}",)
        return self.function, (str(self.marker),)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"),
        (os.mkdir, "mkdir"),
        (eval, "eval"),
        (open, "open"),
        (pathlib.Path.mkdir, "getattr|Path.mkdir"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_hostile_pickle_runs_nothing(state: dict[str, Tensor], path: Path, form: str, function: Any, name: str) -> None:
    marker = path.parent / "ran"
    content = {"model": state, "args": Hostile(marker, function)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"args": Hostile(marker, function)}, protocol=2))
    else:
        saved(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refused(path, f"refused and nothing in it was run.*`[^`]*({name})`")
    assert "state_dict" in message
    assert not marker.exists()


def test_the_hostile_pickle_would_have_run(path: Path) -> None:
    marker = path.parent / "ran"
    pickle.loads(pickle.dumps(Hostile(marker, os.mkdir)))
    assert marker.exists()


def test_whole_pickled_model_is_refused(path: Path) -> None:
    saved({"model": torch.nn.Linear(2, 2)}, path)
    refused(path, r"`torch\.nn\.modules\.linear\.Linear`.*model\.state_dict")


def test_stand_ins_run_nothing_of_numpy(path: Path, state: dict[str, Tensor]) -> None:
    class Scalar:
        def __reduce__(self) -> Any:  # numpy itself would raise on these
            return np.float64(1).__reduce__()[0], (np.dtype("float64"), b"short")

    saved({"model": state, "max_accuracy": Scalar()}, path)
    assert load_checkpoint(path).source == "model"


def test_messages_carry_none_of_torchs_advice_to_trust_the_file(state: dict[str, Tensor], path: Path) -> None:
    saved(training_checkpoint(state), path, _use_new_zipfile_serialization=False)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    messages: list[str] = []
    for _ in range(20):
        broken = bytearray(data)
        for position in rng.integers(0, 600, 3):
            broken[position] = int(rng.integers(256))
        path.write_bytes(broken)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not [message for message in messages if "weights_only" in message or "\n" in message]
