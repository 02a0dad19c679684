"""Bad input through the command line: one paragraph, the right exit code, no traceback, nothing half-written."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from evovit_deploy import load_recipe, random_checkpoint
from evovit_deploy.recipes import Evolution, Recipe, Structure

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"


class Hostile:
    """Unpickled by a careless reader, this makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _missing(folder):
    return folder / "missing.pth"


def _empty(folder):
    (folder / "empty.pth").touch()
    return folder / "empty.pth"


def _truncated(folder):
    (folder / "cut.pth").write_bytes(CHECKPOINT.read_bytes()[:100_000])
    return folder / "cut.pth"


def _text(folder):
    (folder / "notes.pth").write_text("this is no checkpoint\n" * 50)
    return folder / "notes.pth"


def _hostile(folder):
    torch.save({"model": Hostile(folder / "it_ran")}, folder / "hostile.pth")
    return folder / "hostile.pth"


def _hostile_pickle(folder):
    (folder / "raw.pth").write_bytes(pickle.dumps({"model": Hostile(folder / "it_ran")}))
    return folder / "raw.pth"


def _vanilla(folder):
    torch.save(
        {"model": {"blocks.0.attn.qkv.weight": torch.zeros(9, 3), "cls_token": torch.zeros(1, 1, 3)}},
        folder / "deit.pth",
    )
    return folder / "deit.pth"


def _nan(folder):
    document = torch.load(CHECKPOINT, weights_only=False)
    document["model"]["head.bias"][3] = float("nan")
    torch.save(document, folder / "nan.pth")
    return folder / "nan.pth"


CHECKPOINTS = {
    "missing": (_missing, "no such file"),
    "empty": (_empty, "empty"),
    "truncated": (_truncated, ""),
    "text": (_text, ""),
    "hostile": (_hostile, "mkdir"),
    "hostile raw pickle": (_hostile_pickle, "nothing in it was run"),
    "another model": (_vanilla, "--baseline"),
    "nan": (_nan, "head.bias"),
}


@pytest.mark.parametrize("command", ["export", "inspect"])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_bad_checkpoints(evovit, tmp_path, kind, command):
    make, phrase = CHECKPOINTS[kind]
    path = make(tmp_path)
    output = tmp_path / "out" / "model.onnx"
    output.parent.mkdir()
    code, out, err = evovit(command, path, *(["-o", output] if command == "export" else []))
    assert code == (2 if kind == "missing" else 1), err
    assert "Traceback" not in err
    assert "internal error" not in err
    assert path.name in err
    assert phrase in err
    assert out == ""
    assert list(output.parent.iterdir()) == []
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    ("options", "code", "phrase"),
    [
        (["--img-size", "63"], 2, "64"),
        (["--keep", "0"], 2, "keep ratio 0 is impossible"),
        (["--keep", "1.5"], 2, "keep ratio 1.5 is impossible"),
        (["--keep", "0.5,0.5,0.5"], 2, "3 keep ratios given"),
        (["--keep", "half"], 2, "not a list of numbers"),
        (["--keep", "nan"], 2, "impossible"),
        (["--schedule", "token"], 2, "valid: 'stage', 'layer'"),
        (["--batch", "0"], 2, "a number from 1"),
        (["--outputs", "features"], 2, "valid: logits, probabilities, kept"),
        (["--precision", "int8"], 2, "fp32"),
        (["--recipe", "resnet50"], 2, "evo_deit_small_patch16_224"),
        (["--opset", "9"], 1, "valid: 18 to 23"),
        (["--random-weights"], 2, "give one of"),
    ],
)
def test_bad_options(evovit, tmp_path, options, code, phrase):
    got, _, err = evovit("export", CHECKPOINT, "-o", tmp_path / "model.onnx", *options)
    assert got == code, err
    assert phrase in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "options", "named"),
    [
        (("--baseline", "deit_tiny_patch16_224"), ("--method", "tome"), "Leave out --method."),
        (("--baseline", "deit_tiny_patch16_224"), ("--r", "4"), "Leave out --r."),
        (("--baseline", "deit_tiny_patch16_224"), ("--keep", "0.5"), "Leave out --keep."),
        (("--baseline", "deit_tiny_patch16_224"), ("--schedule", "layer"), "Leave out --schedule."),
        (("--baseline", "deit_tiny_patch16_224"), ("--img-size", "384"), "Leave out --img-size."),
        (("--baseline", "deit_tiny_patch16_224"), ("--recipe", "evo_deit_tiny_patch16_224"), "Leave out --recipe."),
        ((CHECKPOINT,), ("--baseline-kind", "twin"), "--baseline-kind twin needs --baseline NAME"),
        (("--recipe", "evo_deit_tiny_patch16_224", "--random-weights"), ("--img-size", "384"), "--img-size is for"),
        (("--recipe", "evo_deit_tiny_patch16_224", "--random-weights"), ("--num-heads", "4"), "--num-heads and --ema"),
    ],
)
def test_no_option_is_ignored(evovit, tmp_path, source, options, named):
    code, _, err = evovit("export", *source, *options, "-o", tmp_path / "model.onnx")
    assert code == 2, err
    assert named in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


def test_nothing_given(evovit):
    code, _, err = evovit("export")
    assert code == 2
    assert "--random-weights" in err


@pytest.mark.parametrize("place", ["no/such/folder/model.onnx", "."])
def test_unwritable_place(evovit, tmp_path, place):
    code, _, err = evovit("export", CHECKPOINT, "-o", tmp_path / place)
    assert code == 1
    assert "folder" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_device(evovit, tmp_path):
    code, _, err = evovit("export", CHECKPOINT, "-o", "/dev/full/model.onnx")
    assert code == 1
    assert "Traceback" not in err


@pytest.fixture
def foreign_onnx(tmp_path):
    """A valid ONNX file of another tool whose input is no image."""
    node = helper.make_node("Relu", ["tokens"], ["out"])
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 5]) for name in ("tokens", "out")]
    model = helper.make_model(
        helper.make_graph([node], "g", tensors[:1], tensors[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


def test_onnx_of_another_tool(evovit, foreign_onnx):
    before = sorted(path.name for path in foreign_onnx.parent.iterdir())
    for arguments in (
        ("predict", foreign_onnx, DIGITS / "test" / "3"),
        ("verify", CHECKPOINT, foreign_onnx),
        ("bench", "--engine", foreign_onnx),
    ):
        code, out, err = evovit(*arguments)
        assert (code, out) == (1, ""), arguments
        assert err.count("error: ") == 1
        assert "not exported by evovit" in err
    code, out, _ = evovit("inspect", foreign_onnx)
    assert code == 0
    assert "Inputs and outputs" in out
    assert "not exported by evovit" in out
    assert sorted(path.name for path in foreign_onnx.parent.iterdir()) == before


def test_an_output_that_is_read_is_refused(evovit, tmp_path):
    """Under any name, and with --force too."""
    model, data = tmp_path / "model.onnx", tmp_path / "data.csv"
    shutil.copy(CHECKPOINT, model)
    data.write_text("path,label\n")
    (tmp_path / "sweep").mkdir()
    recipe, other = tmp_path / "sweep" / "recipe.toml", tmp_path / "other.onnx"
    recipe.write_text("")
    other.symlink_to(model)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments in (
        ("export", model, "-o", model),
        ("export", model, "-o", other),
        ("eval", CHECKPOINT, "--data", data, "-o", data),
        ("sweep", CHECKPOINT, "--data", data, "-o", recipe.parent, "--recipe", recipe, "--max-drop", "1"),
        ("bench", CHECKPOINT, "--record", CHECKPOINT),
    ):
        code, out, err = evovit(*arguments, "--force")
        assert (code, out) == (2, ""), (arguments, err)
        assert "is read by this command, and would be written by it" in " ".join(err.split())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_deleted_working_folder_is_named(evovit, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, out, err = evovit("predict", CHECKPOINT, DIGITS / "test" / "3")
    assert (code, out) == (4, "")
    assert err.startswith("error: the working folder was deleted.")


def test_unreadable_image_is_named_and_the_rest_goes_on(evovit, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    source = sorted((DIGITS / "test" / "3").iterdir())[:2]
    for image in source:
        shutil.copy(image, folder)
    (folder / "broken.png").write_bytes(source[0].read_bytes()[:100])
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = evovit("predict", CHECKPOINT, folder, "--labels", DIGITS / "labels.txt", "--provider", "cpu")
    assert code == 1
    assert f"{folder / 'broken.png'}: " in err
    assert "1 of 3 images could not be classified." in err
    assert [Path(line.split()[0]).name for line in out.splitlines()] == [image.name for image in source]
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_verify_exits_3_and_says_what_differs(evovit, tmp_path):
    recipe = Recipe(
        "other",
        "evo_deit",
        Structure(64, 8, 64, 12, 1, num_classes=10),
        load_recipe("evo_deit_tiny_patch16_224").evolution,
    )
    assert isinstance(recipe.evolution, Evolution)
    other = tmp_path / "other.pth"
    torch.save({"model": random_checkpoint(recipe).state}, other)
    code, out, err = evovit("verify", CHECKPOINT, other)
    assert code == 3
    assert "not the same function" in err
    assert "FAILED" in out


def test_export_then_verify_then_predict(evovit, tmp_path):
    """The good path, in the same harness, so that the bad ones are known to fail for their own reason."""
    import json

    path = tmp_path / "digits.onnx"
    code, out, err = evovit("export", CHECKPOINT, "-o", path, "--outputs", "logits,kept", "--json")
    assert code == 0, err
    assert json.loads(out)["parity"]["passed"] is True
    code, out, err = evovit("verify", CHECKPOINT, path, "--images", DIGITS / "test" / "5", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["max_abs"] <= 1e-4
    assert report["jaccard"] == {"kept_1": 1.0, "kept_2": 1.0}
    code, out, err = evovit("predict", path, DIGITS / "test", "--labels", DIGITS / "labels.txt", "--accuracy", "--json")
    assert code == 0, err
    assert json.loads(out)["accuracy"]["top1"] > 0.95
    assert np.isfinite(json.loads(out)["accuracy"]["top1"])
