"""Every command in a person's terminal: wide, narrow, without colours, and one that knows no escape sequences."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from evovit_deploy.cli import app
from evovit_deploy.cli.doctor import command_names
from evovit_deploy.recipes.write import write_recipe
from tests import shallow
from tests.export.conftest import TINY

from .terminal import BOX, COLOUR, ROOT, SHARED, Said, Way, evovit, run_all, terminal

DIGITS = ROOT / "examples" / "digits"
CHECKPOINT, LABELS, IMAGES = str(DIGITS / "evo_deit_digits.pth"), str(DIGITS / "labels.txt"), str(DIGITS / "test")
IMAGE = str(DIGITS / "test" / "7" / "0081.png")
SHORT = (
    "--batch",
    "1",
    "--min-seconds",
    "0.1",
    "--min-calls",
    "3",
    "--warmup",
    "0",
    "--provider",
    "cpu",
    "--threads",
    "1",
)

# In this order, in one folder: what one writes another reads. A command may be called in several ways. `small.pth` and
# `small.toml` are models of few blocks; the demo below measures and serves the digits.
WAYS: dict[str, list[tuple[str, ...]]] = {
    "inspect": [("inspect", CHECKPOINT)],
    "export": [
        ("export", CHECKPOINT, "-o", "model.onnx", "--outputs", "logits,kept"),
        ("export", "--from-timm", "shallow_vit", "-o", "timm.onnx", "--no-verify"),
        ("export", "--recipe", "small.toml", "--random-weights", "-o", "random.onnx", "--no-verify"),
    ],
    "verify": [("verify", CHECKPOINT, "model.onnx")],
    "diagnose": [("diagnose", "small.pth", "--images", IMAGE, "-o", "diagnosis.svg")],
    "predict": [("predict", "model.onnx", IMAGE, "--labels", LABELS), ("predict", "model.onnx", f"{IMAGES}/3")],
    "eval": [("eval", "model.onnx", "--data", "few", "--labels", LABELS, "--workers", "0")],
    "explain": [("explain", CHECKPOINT, IMAGE, "-o", "explained")],
    "sweep": [
        ("sweep", "small.pth", "--data", "few", "-o", "swept", "--ratios", "0.5", "--workers", "0", "--quick",
         "--backend", "pytorch"),
    ],
    "build": [("build", "timm.onnx", "-o", "model.engine", "--target", "tensorrt-rtx")],
    "gpu-check": [
        ("gpu-check", "--device", "cpu", "--models", "small.toml", "--backend", "pytorch", "--minutes", "0.001"),
    ],
    "list": [("list",)],
    "doctor": [("doctor",)],
    "bench": [("bench", "timm.onnx", *SHORT, "--record", "runs.jsonl")],
    "bench report": [("bench", "report", "runs.jsonl"), ("bench", "report", "runs.jsonl", "-o", "page.html")],
    "bench compare": [("bench", "compare", "runs.jsonl", "runs.jsonl")],
    "bench serve": [("bench", "serve", "--seconds", "0.1", "--clients", "1")],
    "package container": [("package", "container", "model.onnx", "-o", "image", "--force")],
    "package kubernetes": [("package", "kubernetes", "model.onnx", "--image", "x/y:1", "-o", "model.yaml", "--force")],
    "package ray": [("package", "ray", "model.onnx", "-o", "ray.yaml", "--force")],
    "package triton": [("package", "triton", "model.onnx", "-o", "repository", "--force")],
}  # fmt: skip
WITHOUT_RESULT = {("bench", "report", "runs.jsonl", "-o", "page.html")}  # what was written is a note
# At one width only: as others of the command in any width; or narrow, since it takes long.
ONCE = {
    **dict.fromkeys([*WAYS["export"][1:], WAYS["bench report"][1]], 200),
    **dict.fromkeys([WAYS["bench serve"][0], WAYS["gpu-check"][0], WAYS["doctor"][0]], 60),
}
FAILURES: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "no.pth"),
    "export": ("export", "no.pth"),
    "verify": ("verify", "no.pth", "no.onnx"),
    "diagnose": ("diagnose", "no.onnx"),
    "predict": ("predict", "no.onnx", IMAGE),
    "eval": ("eval", "no.onnx", "--data", IMAGES),
    "explain": ("explain", "no.onnx", IMAGE),
    "sweep": ("sweep", "no.pth", "--data", IMAGES),
    "build": ("build", "no.onnx", "--target", "tensorrt-rtx"),
    "serve": ("serve", "no.onnx", "--port", "0", "--grpc-port", "0"),
    "gpu-check": ("gpu-check", "--backend", "nothing"),
    "list": ("list", "nothing"),
    "doctor": ("doctor", "--nothing"),
    "bench": ("bench", "no.onnx"),
    "bench report": ("bench", "report", "no.jsonl"),
    "bench compare": ("bench", "compare", "no.jsonl", "no.jsonl"),
    "bench serve": ("bench", "serve", "no.onnx"),
    "package container": ("package", "container", "no.onnx", "-o", "x"),
    "package kubernetes": ("package", "kubernetes", "no.onnx", "--image", "x/y:1", "-o", "x"),
    "package ray": ("package", "ray", "no.onnx", "-o", "x"),
    "package triton": ("package", "triton", "no.onnx", "-o", "x"),
}
EVERY_WAY = [words for ways in WAYS.values() for words in ways]
BUILDS = find_spec("tensorrt_rtx") is not None
WIDTHS = (200, 60)
COLOURLESS: dict[str, dict[str, str]] = {"dumb": {"TERM": "dumb"}, "no_color": {"NO_COLOR": "1"}}
PLAIN = [("--help",), ("inspect", CHECKPOINT), ("list",), ("predict", CHECKPOINT, IMAGE)]
Ways = dict[tuple[str, ...], Said]


def test_every_command_has_its_cases() -> None:
    names = set(command_names(get_command(app)))
    assert names == set(WAYS) | {"serve"}, "a new command needs a way to call it here; serve has its own test"
    assert names == set(FAILURES)


@pytest.fixture(scope="module")
def said_by(tmp_path_factory: pytest.TempPathFactory) -> dict[int | str, Ways]:
    """Every way to call every command at each width, then every failure and some successes without colours.

    All in one terminal and one folder, so that what was made at one width is there at the other.
    """
    folder = tmp_path_factory.mktemp("terminal")
    shallow.save_evit(folder / "small.pth", 10)
    write_recipe(folder / "small.toml", dataclasses.replace(TINY, name="small"), "a small Evo-DeiT")
    for name in ("3", "7"):
        (folder / "few" / name).mkdir(parents=True)
        for image in sorted((DIGITS / "test" / name).iterdir())[:2]:
            (folder / "few" / name / image.name).write_bytes(image.read_bytes())
    goes: list[tuple[int | str, Way]] = [
        (columns, (words, columns, {}))
        for columns in WIDTHS
        for words in EVERY_WAY
        if (BUILDS or words[0] != "build") and ONCE.get(words, columns) == columns
    ]
    goes += [(kind, (words, 80, COLOURLESS[kind])) for kind in COLOURLESS for words in (*FAILURES.values(), *PLAIN)]
    found: dict[int | str, Ways] = {}
    ways = [way for _, way in goes]
    for (kind, (words, _, _)), said in zip(goes, run_all(ways, folder, EVOVIT_CACHE=str(folder / "cache"))):
        found.setdefault(kind, {})[tuple(words)] = said
    return found


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("words", EVERY_WAY, ids=" ".join)
def test_success(said_by: dict[int | str, Ways], columns: int, words: tuple[str, ...]) -> None:
    ways = said_by[columns]
    if words not in ways:
        pytest.skip("TensorRT-RTX is not installed" if words[0] == "build" else "the width makes no difference to it")
    said = ways[words]
    check(said, 0, columns)
    assert any(line.strip() for line in said.lines) or words in WITHOUT_RESULT
    assert last_cursor(said.err) in ("", "\x1b[?25h")


def check(said: Said, code: int, columns: int) -> None:
    everything = said.out + said.err
    assert said.code == code, everything
    for word in ("internal error", "Traceback", "This is a bug", "Exception ignored"):
        assert word not in everything
    for line in said.lines:
        if line[:1] and line[0] in "┌├└┏┡╭╰+" + BOX:
            assert len(line.rstrip()) <= columns, line


def last_cursor(text: str) -> str:
    """The last sequence that hides or shows the cursor."""
    return (re.findall(r"\x1b\[\?25[lh]", text) or [""])[-1]


@pytest.mark.parametrize("kind", COLOURLESS)
@pytest.mark.parametrize("name", FAILURES)
def test_failure(said_by: dict[int | str, Ways], kind: str, name: str) -> None:
    said = said_by[kind][FAILURES[name]]
    assert said.code in (1, 2)
    check(said, said.code, 80)
    assert said.out == ""
    assert re.search(r"error:|Error", said.err)
    no_colours(kind, said)


@pytest.mark.parametrize("kind", COLOURLESS)
@pytest.mark.parametrize("words", PLAIN, ids=lambda words: words[0])
def test_without_colours(said_by: dict[int | str, Ways], kind: str, words: tuple[str, ...]) -> None:
    said = said_by[kind][words]
    check(said, 0, 80)
    assert said.lines
    no_colours(kind, said)


def no_colours(kind: str, said: Said) -> None:
    if kind == "dumb":
        assert "\x1b" not in said.out + said.err
    assert not COLOUR.search(said.out + said.err)


@pytest.mark.parametrize("stop", ["ctrl-c", "sigterm"])
def test_serve(tmp_path: Path, stop: str) -> None:
    words = ("serve", CHECKPOINT, "--port", "0", "--grpc-port", "0", "--provider", "cpu", "--threads", "1")
    with terminal(evovit(*words, columns=60), tmp_path, warm=stop == "sigterm") as opened:
        opened.read(until="ready: grpc")
        assert "ready: http" in opened.err
        if stop == "ctrl-c":
            opened.press_ctrl_c()
        else:
            opened.process.send_signal(signal.SIGTERM)
        assert opened.wait() == 0
        assert "\0000\0" in opened.out
        check(Said(0, opened.out, opened.err), 0, 60)


@pytest.mark.parametrize(
    ("words", "until"),
    [
        (("export", "--recipe", "evo_deit_tiny_patch16_224", "--random-weights", "-o", "x.onnx"), "/4"),
        (("bench", CHECKPOINT, "--min-seconds", "100", "--record", "x.jsonl"), "/100"),
    ],
    ids=["export", "bench"],
)
def test_ctrl_c(tmp_path: Path, words: tuple[str, ...], until: str) -> None:
    """Nothing half-written is left, the cursor is back, and one line says what happened."""
    with terminal(evovit(*words), tmp_path, warm=words[0] == "bench", EVOVIT_CACHE=str(tmp_path / "cache")) as opened:
        opened.read(until=until)
        opened.press_ctrl_c()
        opened.wait()
        said = Said(int(opened.out.split("\0")[1]), opened.out, opened.err)
    check(said, 130, 200)
    assert "interrupted" in said.err
    assert last_cursor(said.err) == "\x1b[?25h"
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] in ([], ["x.jsonl"])


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    """`make demo` in a terminal; its processes share exports with other tests, and measure briefly."""
    (tmp_path / "site").mkdir()
    needed = textwrap.indent(SHARED, "    ")  # by commands that export or measure
    customized = f"import sys\nif {{'export', 'verify', 'bench'}} & set(sys.orig_argv):{needed}"
    (tmp_path / "site" / "sitecustomize.py").write_text(customized)  # what every Python reads first
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    with terminal([str(DIGITS / "demo.py")], tmp_path, EVOVIT_CACHE=str(tmp_path / "cache"), PYTHONPATH=path) as opened:
        assert opened.wait() == 0, opened.out[-3000:] + opened.err[-3000:]
        assert "stopped, exit code 0" in opened.out
        check(Said(0, opened.out, opened.err), 0, 80)
