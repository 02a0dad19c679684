"""Nothing that evovit did not write is replaced unless that is asked for; what it wrote itself is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evovit_deploy import ExportOptions, export_onnx, load_checkpoint
from evovit_deploy.cli import app
from evovit_deploy.errors import OutputError
from evovit_deploy.loadtest.ray_faults import prepare_environment
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.storage.ownership import is_page, is_picture, is_signed, signed
from tests import measuring

prepare_environment()  # before any test imports Ray
ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
IMAGES = [DIGITS / "test" / "3" / name for name in ("0045.png", "0103.png")]
RECORDS = next((ROOT / "bench" / "results").glob("*xeon*.jsonl"))
FOREIGN = b'["my own"]\n'


@dataclass(frozen=True)
class Writer:
    """A command, the files it writes into a folder, and whether it replaces its own.

    ``slow`` is one whose work takes seconds, so that only its refusals are tried here.
    """

    words: Callable[[Path, Path], list[Any]]
    files: tuple[str, ...]
    replaces: bool = True
    slow: bool = False


PLOTS = tuple(f"page-{number}-{kind}.png" for number in (1, 2) for kind in ("latency", "speedup"))
WRITERS = {
    "export": Writer(
        lambda model, out: ["export", CHECKPOINT, "-o", out / "model.onnx", "--no-verify"], ("model.onnx", "model.json")
    ),
    "export a baseline": Writer(
        lambda model, out: ["export", "--baseline", "deit_tiny_patch16_224", "-o", out / "model.onnx", "--no-verify"],
        ("model.onnx", "model.json"),
        slow=True,
    ),
    "export an engine": Writer(
        lambda model, out: ["export", CHECKPOINT, "--format", "engine", "-o", out / "model.engine", "--no-verify"],
        ("model.onnx", "model.json", "model.engine", "model.engine.json"),
        slow=True,
    ),
    "build": Writer(
        lambda model, out: ["build", model, "-o", out / "model.engine", "--no-verify"],
        ("model.engine", "model.engine.json"),
        slow=True,
    ),
    "explain": Writer(
        lambda model, out: ["explain", model, *IMAGES, "-o", out],
        ("index.html", "overview.png", "0001_0045.png", "0002_0103.png"),
    ),
    "sweep": Writer(
        lambda model, out: [
            "sweep",
            CHECKPOINT,
            "--data",
            DIGITS / "test",
            "-o",
            out,
            "--ratios",
            "0.5",
            "--max-drop",
            1,
        ],
        ("outcomes.jsonl", "front.svg", "front.md", "recipe.toml", "models/full_fp32.onnx", "models/full_fp32.json"),
        slow=True,
    ),
    "eval": Writer(
        lambda model, out: [
            "eval",
            model,
            "--data",
            out.parent / "data.csv",
            "-o",
            out / "predictions.csv",
            "--workers",
            0,
        ],
        ("predictions.csv",),
    ),
    "bench": Writer(
        lambda model, out: ["bench", model, "--baseline", "none", "--quick", "--record", out / "runs.jsonl"],
        ("runs.jsonl",),
        slow=True,
    ),
    "bench serve": Writer(
        lambda model, out: ["bench", "serve", "--record", out / "runs.jsonl"], ("runs.jsonl",), slow=True
    ),
    "bench report": Writer(
        lambda model, out: ["bench", "report", RECORDS, "-o", out / "page.html"], ("page.html", *PLOTS)
    ),
    "package container": Writer(
        lambda model, out: ["package", "container", model, "-o", out],
        ("Containerfile", "requirements.txt", "kept.onnx", ".dockerignore"),
        replaces=False,
    ),
    "package kubernetes": Writer(
        lambda model, out: ["package", "kubernetes", model, "--image", "host/x:1", "-o", out / "x.yaml"],
        ("x.yaml",),
        replaces=False,
    ),
    "package ray": Writer(
        lambda model, out: ["package", "ray", model, "--folder", "/models", "-o", out / "x.yaml"],
        ("x.yaml",),
        replaces=False,
    ),
    "package triton": Writer(
        lambda model, out: ["package", "triton", model, "-o", out],
        ("kept/1/model.onnx",),
        replaces=False,
    ),
}
CASES = [(name, file) for name, writer in WRITERS.items() for file in writer.files]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("owned") / "kept.onnx"
    options = ExportOptions(ModelOptions(outputs=("logits", "kept")), prove=False)
    export_onnx(load_checkpoint(CHECKPOINT), path, options)
    return path


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data.csv").write_text("path,label\n" + "".join(f"{path},3\n" for path in IMAGES))
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def call(words: list[Any]) -> BaseException | None:
    """Run a command; an error of ours, or None."""
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exit_code and not isinstance(result.exception, OutputError):
        raise result.exception or AssertionError(result.output)
    return result.exception if result.exit_code else None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "file"), CASES)
def test_what_evovit_did_not_write_is_refused(name: str, file: str, model: Path, out: Path) -> None:
    if name in ("export an engine", "build"):
        pytest.importorskip("tensorrt_rtx")
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    (out / file).write_bytes(FOREIGN)
    error = call(WRITERS[name].words(model, out))
    assert error is not None
    assert str(out / file).removesuffix("/model.onnx" if name == "package triton" else "") in str(error)
    assert "--force" in str(error)
    assert contents(out) == {file: FOREIGN}


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if not writer.slow])
def test_it_is_replaced_when_asked_for_and_own_files_always(name: str, model: Path, out: Path) -> None:
    writer = WRITERS[name]
    for file in writer.files:
        if name != "package triton":
            (out / file).write_bytes(FOREIGN)
    assert call([*writer.words(model, out), "--force"]) is None
    written = contents(out)
    assert set(writer.files) <= set(written)
    assert FOREIGN not in written.values()
    again = call(writer.words(model, out))
    assert (again is None) == writer.replaces
    assert set(contents(out)) == set(written)
    assert call([*writer.words(model, out), "--force"]) is None


def test_an_engine_and_its_onnx_file_again(out: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    words = [*WRITERS["export an engine"].words(out, out), "--max-batch", 1, "--opt-batch", 1]
    for _ in range(2):
        assert call(words) is None
    (out / "model.engine").write_bytes((out / "model.engine").read_bytes() + b"mine")
    assert "model.engine exists" in str(call(words))


def test_records_are_appended_to_records_only(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring.install(monkeypatch.setattr)
    words = ["bench", model, "--baseline", "none", "--record", out / "runs.jsonl", "--batch", 1, "--threads", 1]
    words += ["--min-seconds", 0.01, "--min-calls", 3, "--max-seconds", 0.1, "--warmup", 0]
    (out / "runs.jsonl").write_bytes(FOREIGN)
    assert call([*words, "--force"]) is None
    assert (out / "runs.jsonl").read_bytes().startswith(FOREIGN)
    (out / "runs.jsonl").unlink()
    for _ in range(2):
        assert call(words) is None
    assert len((out / "runs.jsonl").read_text().splitlines()) == 2


def test_an_empty_file_holds_nothing(out: Path) -> None:
    for name in ("model.onnx", "model.json"):
        (out / name).touch()
    assert call(WRITERS["export"].words(out, out)) is None


def test_explain_takes_its_own_old_pictures_with_it(model: Path, out: Path) -> None:
    (out / "0007_mine.png").write_bytes(IMAGES[0].read_bytes())
    (out / "notes.txt").write_text("mine")
    assert call(["explain", model, *IMAGES, "-o", out]) is None
    assert call(["explain", model, IMAGES[1], "-o", out]) is None
    assert set(contents(out)) == {"0007_mine.png", "notes.txt", "index.html", "overview.png", "0001_0103.png"}


def test_bench_report_takes_its_own_old_plots_with_it(out: Path) -> None:
    (out / "page-3-latency.png").write_bytes(IMAGES[0].read_bytes())
    words = WRITERS["bench report"].words(out, out)
    assert call(words) is None
    assert call([*words, "--last"]) is None
    assert set(contents(out)) == {"page.html", *PLOTS[:2], "page-3-latency.png"}


def test_triton_keeps_a_configuration_that_was_edited(model: Path, out: Path) -> None:
    labels = ["--labels", DIGITS / "labels.txt"]
    words = ["package", "triton", model, "-o", out]
    assert call([*words, *labels]) is None
    assert call([*words, *labels, "--model-version", 2]) is None
    config = out / "kept" / "config.pbtxt"
    config.write_text(config.read_text() + "# tuned by hand\n")
    before = contents(out)
    error = str(call([*words, *labels, "--model-version", 3]))
    assert str(config) in error
    assert "labels.txt" not in error
    assert contents(out) == before
    assert call([*words, *labels, "--model-version", 3, "--force"]) is None
    assert "tuned" not in config.read_text()


def test_a_signature_goes_with_an_edit(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(signed("a = 1\n", "sweep"))
    assert is_signed(path)
    path.write_text(path.read_text() + "\n")  # editors end files so
    assert is_signed(path)
    path.write_text(path.read_text().replace("1", "2", 1))
    assert not is_signed(path)
    path.write_text("a = 1\n")
    assert not is_signed(path)


def test_pages_and_pictures_of_other_commands_are_other_files(model: Path, out: Path) -> None:
    assert call(["explain", model, IMAGES[0], "-o", out]) is None
    assert is_page("explain")(out / "index.html")
    assert not is_page("bench")(out / "index.html")
    assert is_picture("explain")(out / "0001_0045.png")
    assert not is_picture("bench")(out / "0001_0045.png")
    assert "index.html exists" in str(call(["bench", "report", RECORDS, "-o", out / "index.html"]))
