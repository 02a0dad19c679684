"""Names that were mistyped, wherever a name is taken: the message holds the one that was meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evovit_deploy import cli
from evovit_deploy.suggest import close_to, did_you_mean

CHECKPOINT = Path(__file__).parents[1] / "examples" / "digits" / "evo_deit_digits.pth"
NAMES = ("evo_deit_small_patch16_224", "evo_deit_small_patch16_384", "evo_levit_128s_224")


@pytest.mark.parametrize(
    ("word", "best"),
    [
        ("evo_deit_smal_patch16_224", NAMES[0]),
        ("EVO-DEIT-SMALL-PATCH16-224", NAMES[0]),
        ("evo_levit_128s", NAMES[2]),
        ("128s", NAMES[2]),
    ],
)
def test_the_closest_name_comes_first(word: str, best: str) -> None:
    assert close_to(word, NAMES)[0] == best


def test_phrases() -> None:
    assert did_you_mean("fp61", ("fp16", "int8")) == " Did you mean 'fp16'?"
    assert did_you_mean("deit_small_patch16", ("deit_small_patch16_224", "deit_small_patch16_384")) == (
        " Did you mean 'deit_small_patch16_224' or 'deit_small_patch16_384'?"
    )
    assert did_you_mean("resnet", ("vit_tiny",)) == ""
    assert did_you_mean("", ("vit_tiny",)) == ""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("export", "--recipe", "evo_deit_smal_patch16_224", "--random-weights"), "evo_deit_small_patch16_224"),
        (("export", "--baseline", "levit_182s_224"), "levit_128s_224"),
        (("export", CHECKPOINT, "--precision", "fp61"), "fp16"),
        (("export", CHECKPOINT, "--outputs", "logits,probabilites"), "probabilities"),
        (("export", CHECKPOINT, "--selection", "onhot"), "onehot"),
        (("export", CHECKPOINT, "--schedule", "stages"), "stage"),
        (("export", "--from-timm", "vit_smal_patch16_224"), "vit_small_patch16_224"),
        (("build", "model.onnx", "--profile", "h10"), "h100"),
        (("bench", CHECKPOINT, "--suite", "quik"), "quick"),
        (("bench", CHECKPOINT, "--backend", "onnxruntim"), "onnxruntime"),
        (("predict", CHECKPOINT, "images", "--backend", "pytroch"), "pytorch"),
        (("predict", CHECKPOINT, "images", "--provider", "cdua"), "cuda"),
        (("list", "recpies"), "recipes"),
        (("exprot", CHECKPOINT), "export"),
        (("export", CHECKPOINT, "--precison", "fp16"), "--precision"),
    ],
)
def test_every_name_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], meant: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["evovit", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    after = said.lower().partition("did you mean" if "did you mean" in said.lower() else "possible options")[2]
    assert meant in after, said
    assert "Value error" not in said
