"""A path that does not exist ends every command the same way: exit 2, what was looked for, and what is there instead."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from evovit_deploy import cli

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
IMAGE = str(next((DIGITS / "test" / "3").iterdir()))
ONNX = "there.onnx"  # a real model, made once for the session

# Command and parameter -> a command line whose only fault is that MISSING is not there.
LINES = {
    ("inspect", "file"): "inspect MISSING",
    ("export", "checkpoint"): "export MISSING -o out.onnx",
    ("export", "weights"): "export --from-timm vit_tiny_patch16_224 --weights MISSING -o out.onnx",
    ("verify", "reference"): "verify MISSING CKPT",
    ("verify", "model"): "verify CKPT MISSING",
    ("verify", "images"): "verify CKPT CKPT --images MISSING",
    ("predict", "model"): "predict MISSING IMAGE",
    ("predict", "images"): "predict CKPT MISSING",
    ("predict", "labels"): "predict CKPT IMAGE --labels MISSING",
    ("eval", "model"): "eval MISSING --data DATA",
    ("eval", "data"): "eval CKPT --data MISSING",
    ("eval", "against"): "eval CKPT --data DATA --against MISSING",
    ("eval", "labels"): "eval CKPT --data DATA --labels MISSING",
    ("explain", "model"): "explain MISSING IMAGE",
    ("explain", "images"): "explain CKPT MISSING",
    ("explain", "against"): "explain CKPT IMAGE --against MISSING",
    ("explain", "labels"): "explain CKPT IMAGE --labels MISSING",
    ("diagnose", "model"): "diagnose MISSING",
    ("diagnose", "images"): "diagnose CKPT --images MISSING",
    ("diagnose", "against"): "diagnose ONNX --against MISSING",
    ("sweep", "data"): "sweep CKPT --data MISSING -o out",
    ("sweep", "checkpoint"): "sweep MISSING --data DATA -o out",
    ("sweep", "labels"): "sweep CKPT --data DATA --labels MISSING -o out",
    ("sweep", "weights"): "sweep --from-timm vit_tiny_patch16_224 --weights MISSING --data DATA -o out",
    ("build", "onnx"): "build MISSING",
    ("serve", "engines"): "serve MISSING --port 0",
    ("serve", "labels"): "serve ONNX --port 0 --no-grpc --labels MISSING",
    ("serve", "token_file"): "serve ONNX --port 0 --token-file MISSING",
    ("serve", "tls_certificate"): "serve ONNX --port 0 --tls-certificate MISSING --tls-key MISSING",
    ("serve", "tls_key"): "serve ONNX --port 0 --tls-certificate ONNX --tls-key MISSING",
    ("bench run", "model"): "bench MISSING --quick",
    ("bench run", "engine"): "bench --engine MISSING --quick",
    ("bench run", "labels"): "bench CKPT --quick --images DATA --labels MISSING",
    ("bench report", "records"): "bench report MISSING",
    ("bench report", "readme"): "bench report RECORDS --readme MISSING",
    ("bench compare", "before"): "bench compare MISSING RECORDS",
    ("bench compare", "after"): "bench compare RECORDS MISSING",
    ("bench serve", "model"): "bench serve MISSING",
    ("package container", "model"): "package container MISSING -o out",
    ("package container", "labels"): "package container ONNX -o out --labels MISSING",
    ("package container", "wheel"): "package container ONNX -o out --wheel MISSING",
    ("package container", "template"): "package container ONNX -o out --template MISSING",
    ("package kubernetes", "model"): "package kubernetes MISSING --image a/b:1 -o out.yaml",
    ("package kubernetes", "labels"): "package kubernetes ONNX --image a/b:1 -o out.yaml --labels MISSING",
    ("package kubernetes", "template"): "package kubernetes ONNX --image a/b:1 -o out.yaml --template MISSING",
    ("package ray", "model"): "package ray MISSING -o out.yaml",
    ("package ray", "labels"): "package ray ONNX -o out.yaml --labels MISSING",
    ("package ray", "template"): "package ray ONNX -o out.yaml --template MISSING",
    ("package triton", "model"): "package triton MISSING -o out",
    ("package triton", "labels"): "package triton ONNX -o out --labels MISSING",
}
# Names that may be a path too, which the shipped names are tried for first.
NAMES = {
    "recipe": "export CKPT --recipe MISSING -o out.onnx",
    "profile": "build ONNX --profile MISSING",
    "suite": "bench --suite MISSING",
    "baseline": "bench ONNX --quick --baseline MISSING",
}
# Written, or not on this machine.
NO_INPUT = {"output", "predictions", "record"} | {"folder"}


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from evovit_deploy import export_onnx, load_checkpoint
    from evovit_deploy.export import ExportOptions

    path = tmp_path_factory.mktemp("model") / ONNX
    export_onnx(load_checkpoint(CHECKPOINT), path, options=ExportOptions(prove=False))
    return path


def run(line: str, onnx: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    words = {
        "CKPT": str(CHECKPOINT),
        "ONNX": str(onnx),
        "IMAGE": IMAGE,
        "DATA": str(DIGITS / "test"),
        "RECORDS": str(next((Path(__file__).parents[2] / "bench" / "results").glob("*.jsonl"))),
        "MISSING": "modle.onnx",
    }
    monkeypatch.setattr(sys, "argv", ["evovit", *(words.get(word, word) for word in line.split())])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("line", [*LINES.values(), *NAMES.values()])
def test_a_missing_input(
    line: str, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"near in name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    code = run(line, onnx, monkeypatch)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert "modle.onnx" in said.err
    assert "no such file" in said.err
    if line in LINES.values():
        assert "Did you mean 'model.onnx'?" in said.err
    assert said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]  # nothing was begun


def test_the_list_above_has_every_path_that_is_read() -> None:
    """By the annotations of the commands, so that a new option cannot be forgotten."""

    def paths(group: Any, before: tuple[str, ...] = ()) -> set[tuple[str, str]]:
        found = set()
        for name, command in group.commands.items():
            words = (*before, name)
            if hasattr(command, "commands"):
                found |= paths(command, words)
                continue
            function = inspect.unwrap(command.callback)
            for parameter, kind in get_type_hints(function).items():
                if Path in (kind, *get_args(kind)) or list[Path] in get_args(kind) or kind == list[Path]:
                    found.add((" ".join(words), parameter))
        return found

    read = {(command, name) for command, name in paths(typer.main.get_command(cli.app)) if name not in NO_INPUT}
    on_the_nodes = {("package ray", "token_file")}
    assert read - on_the_nodes <= set(LINES)
    assert set(LINES) - read == {("serve", "engines"), ("bench run", "model")}


def test_a_missing_folder_is_named(
    onnx: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect no/such/model.onnx", onnx, monkeypatch) == 2
    assert "The folder no/such does not exist" in " ".join(capsys.readouterr().err.split())
