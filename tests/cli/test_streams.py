"""stdout that is full, closed or of another encoding, and text that a terminal would obey."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy import cli
from evovit_deploy.cli import _console
from evovit_deploy.storage.files import exact, plain, printable

from .terminal import BOX, ROOT

DIGITS = ROOT / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
IMAGE = DIGITS / "test" / "7" / "0081.png"
EVIL = "a\x1b]0;title\x07b\nerror: c\r\x9b31m\u202ed\u2028e"
RAW = ("\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2028")
RUN = """
import json, os, sys
from evovit_deploy.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["evovit", *(os.fsdecode(word.encode()) for word in words)]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; its exit code."""

    def command(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["evovit", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return command


def test_plain_text_is_one_line_that_nothing_obeys() -> None:
    assert plain("семь, café 漢字 \U0001f469\u200d\U0001f680 a\\b") == "семь, café 漢字 \U0001f469\u200d\U0001f680 a\\b"
    shown = plain(EVIL)
    assert not any(raw in shown for raw in (*RAW, "\n"))
    assert "\\x1b]0;title\\x07b\\nerror: c\\r\\x9b31m\\u202ed\\u2028e" in shown
    assert plain("\udcff") == "\\udcff"
    assert printable(Path("a\nb")) == "a\\nb"
    assert exact(Path("a\nb")) == "a\nb"
    assert exact(Path(os.fsdecode(b"a\xff"))) == "a\ufffd"


def _table(text: Any, **options: Any) -> Any:
    from rich.table import Table

    table = Table(**options)
    table.add_column("name")
    table.add_column("value")
    table.add_row(text, "1")
    return table


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("kind", ["text", "line", "markup", "cell", "title", "plain cell", "error"])
def test_whatever_is_printed(monkeypatch: pytest.MonkeyPatch, encoding: str, kind: str) -> None:
    """Nothing raw comes through, nothing raises, and a table keeps its shape, escapes being measured like other text."""
    from rich.markup import escape
    from rich.text import Text

    evil = EVIL + "семь"
    things: dict[str, Any] = {
        "text": Text(evil),
        "line": evil,
        "markup": f"[bold]{escape(evil)}[/]",
        "cell": _table(Text(evil)),
        "plain cell": _table(evil),
        "title": _table("x", title=Text(evil)),
        "error": None,
    }
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "300")
    if kind == "error":
        _console.fail(evil)
    else:
        _console.err().print(things[kind], soft_wrap=not kind.endswith(("cell", "title")))
    stream.seek(0)
    said = stream.read()
    assert not any(raw in said for raw in RAW)
    whole = "".join(said.split())  # a title is wrapped at the width of its table
    assert ("семь" if encoding == "utf-8" else "\\u0441\\u0435\\u043c\\u044c") in whole
    if kind.endswith("cell"):
        assert len({len(line) for line in said.splitlines()}) == 1
        assert "\\nerror: c" in said
    else:
        assert "\nerror: c" not in said


def test_words_between_colons_are_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    _console.out().print("a:car:b", markup=False)
    assert capsys.readouterr().out == "a:car:b\n"


def test_json_has_no_word_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    _console.print_json({"a": [float("nan"), 1.5], "b": {"c": float("-inf")}, "d": "семь\x1b"})
    said = capsys.readouterr().out
    assert said.isascii()
    assert "\x1b" not in said
    assert json.loads(said) == {"a": [None, 1.5], "b": {"c": None}, "d": "семь\x1b"}


@pytest.mark.parametrize(("encoding", "variables"), [
    ("cp1252", {"PYTHONIOENCODING": "cp1252"}),
    ("ascii", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
])  # fmt: skip
def test_a_stdout_that_is_not_utf8(tmp_path: Path, encoding: str, variables: dict[str, str]) -> None:
    names = [str(number) for number in range(10)]
    names[7] = "семь"
    (tmp_path / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    folder = tmp_path / "картинки" / "7"
    folder.mkdir(parents=True)
    (folder / "0081.png").write_bytes(IMAGE.read_bytes())
    data, labels = str(folder.parent), ("--labels", str(tmp_path / "labels.txt"))
    commands = [
        ["--help"], ["list"], ["inspect", str(CHECKPOINT)],
        ["predict", str(CHECKPOINT), data, *labels], ["predict", str(CHECKPOINT), str(folder / "0081.png"), *labels],
        ["eval", str(CHECKPOINT), "--data", data, *labels, "--workers", "0"],
        ["explain", str(CHECKPOINT), data, *labels, "-o", str(tmp_path / "вывод")],
    ]  # fmt: skip
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL")
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)], cwd=tmp_path, capture_output=True, timeout=600,
        env={**environment, "PYTHONPATH": str(ROOT), "EVOVIT_CACHE": str(tmp_path / "cache"), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    said = done.stdout.decode(encoding)
    assert "\\u0441\\u0435\\u043c\\u044c" in said
    assert "top-1" in said
    assert b"Error" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "words", [("inspect", CHECKPOINT), ("inspect", CHECKPOINT, "--json"), ("--help",), ("--version",)]
)
@pytest.mark.parametrize("buffering", [-1, 1])
def test_stdout_on_a_full_disk(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[object, ...],
    buffering: int,
) -> None:
    with open("/dev/full", "w", buffering) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(*words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the result could not be written to stdout: No space left on device.")
    assert "bug" not in err


def test_stdout_is_closed(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run("inspect", CHECKPOINT) == 1
    monkeypatch.undo()
    assert "error: stdout is closed, so the result cannot be printed" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_files_do_not_take_the_numbers_of_closed_streams(tmp_path: Path, closed: str) -> None:
    """What a library writes to stdout or stderr would land in them."""
    code = (
        "import os; from evovit_deploy.cli import _streams; _streams.prepare(); "
        "assert open('x', 'w').fileno() > 2; os.write(1, b'text'); os.write(2, b'text')"
    )
    done = subprocess.run(
        f'"{sys.executable}" -c "{code}" {closed}',
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0
    assert (tmp_path / "x").read_text() == ""


def test_the_reader_of_stdout_has_gone(tmp_path: Path) -> None:
    """As with `| head`: quiet."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([["list"]])], stdout=write, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_names_and_labels_that_would_command_a_terminal(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    evil = "a\x1b]0;t\x07[bold]\nb"
    image = tmp_path / "few" / "7" / f"{evil}.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(IMAGE.read_bytes())
    (image.parent / f"{evil}.broken.png").write_bytes(b"not an image")
    (tmp_path / "labels.json").write_text(json.dumps([f"{evil}{number}" for number in range(10)]))
    labels = ("--labels", "labels.json")
    data = ("--data", "few", "--workers", "0")
    model = tmp_path / f"{evil}.pth"
    model.write_bytes(CHECKPOINT.read_bytes())
    for words, code in (
        (("inspect", model), 0),
        (("inspect", tmp_path / f"{evil}.onnx"), 2),
        (("inspect", model, evil), 2),
        ((evil,), 2),
        (("predict", model, image, *labels), 0),
        (("predict", model, "few", *labels), 1),
        (("eval", model, *data), 1),
        (("eval", model, "--against", model, *data), 1),
        (("explain", model, "few", *labels, "-o", evil), 1),
    ):
        assert run(*words) == code, words
        printed = capsys.readouterr()
        for said in printed:
            assert "\x1b" not in said, words
            assert "\x07" not in said, words
            assert "[bold]\nb" not in said, words
        assert "internal error" not in printed.err
    assert list((tmp_path / evil).glob("*.png"))


def test_boxes_are_drawn_with_what_the_stream_has(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    _console.err().print(_table("—…°"))
    stream.seek(0)
    lines = stream.read().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert not any(mark in "".join(lines) for mark in ("\\u", BOX[0]))


def test_log_lines_do_not_obey_clients(capsys: pytest.CaptureFixture[str]) -> None:
    from evovit_deploy.serve.logs import BackgroundHandler

    handler, log = BackgroundHandler(sys.stderr), logging.getLogger("evovit.test.lines")
    log.handlers, log.propagate = [handler], False
    try:
        raise ValueError("of a\x1b[2J client")
    except ValueError:
        log.exception("GET /%s failed", EVIL)
    handler.close()
    said = capsys.readouterr().err
    assert not any(raw in said for raw in RAW)
    assert "\nerror: c" not in said
    assert "\nTraceback (most recent call last):\n" in said


def test_files_that_would_command_a_terminal(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of tensors and outputs, metadata of ONNX files and labels in records come from whoever wrote the file."""
    import onnx
    import torch
    from onnx import TensorProto, helper
    from safetensors.torch import save_file

    evil = "a\x1b]0;t\x07[bold]\nb"
    ports = [helper.make_tensor_value_info(f"{evil}{name}", TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Relu", [f"{evil}x"], [f"{evil}y"])
    model = helper.make_model(helper.make_graph([node], evil, ports[:1], ports[1:]), producer_name=evil)
    helper.set_model_props(model, {evil: evil})
    onnx.save(model, tmp_path / "x.onnx")
    save_file({evil: torch.zeros(1)}, tmp_path / "x.safetensors")
    [record, *_] = sorted((ROOT / "bench" / "results").glob("cpu*.jsonl"))
    document = json.loads(record.read_text().splitlines()[-1])
    old = document["points"][0]["subject"]
    text = json.dumps(document).replace(json.dumps(old), json.dumps(evil))
    (tmp_path / "runs.jsonl").write_text(text + "\n")
    for words in (
        ("inspect", tmp_path / "x.onnx"),
        ("predict", tmp_path / "x.onnx", IMAGE),
        ("package", "triton", tmp_path / "x.onnx", "-o", tmp_path / "repository"),
        ("inspect", tmp_path / "x.safetensors"),
        ("export", tmp_path / "x.safetensors"),
        ("bench", "report", tmp_path / "runs.jsonl"),
        ("bench", "compare", tmp_path / "runs.jsonl", tmp_path / "runs.jsonl"),
    ):
        code = run(*words)
        printed = capsys.readouterr()
        assert code == 0 or "error:" in printed.err
        assert "internal error" not in printed.err, words
        for said in printed:
            assert "\x1b" not in said, words
            assert "\x07" not in said, words
            assert "[bold]\nb" not in said, words
