from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from evovit_deploy.cli.predict import predict
from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.errors import EngineError, InputError
from evovit_deploy.manifest.spec import ModelSpec

CLASSES, SIZE = 4, 8
app = typer.Typer()
app.command()(predict)


def red_logits(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Class = red value of the pixels / 10; the next classes follow."""
    winner = np.round(images[:, SIZE // 2, SIZE // 2, 0] / 10).astype(int)
    return -((np.arange(CLASSES)[None] - winner[:, None]) % CLASSES).astype(np.float32)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(CLASSES, SIZE, image_input="uint8", logits=red_logits)
    opened: list[Any] = []

    def open_(path: Path, **options: Any) -> FakeEngine:
        opened.append((path, options))
        return fake

    monkeypatch.setattr(Engine, "open", staticmethod(open_))
    monkeypatch.setattr(fake, "close", lambda: None)  # one engine for every call of a test
    fake.opened = opened  # type: ignore[attr-defined]
    return fake


@pytest.fixture
def paint(tmp_path: Path) -> Callable[[str, int], Path]:
    def save(name: str, number: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (number * 10, 0, 0)).save(path)
        return path

    return save


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def softmax() -> np.ndarray[Any, Any]:
    values = np.exp(-np.arange(CLASSES, dtype=np.float64))
    return values / values.sum()


def test_json_of_one_image(engine: FakeEngine, paint: Callable[[str, int], Path]) -> None:
    path = paint("x.png", 2)
    result = call("m.onnx", path, "--json", "--top-k", 3)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert list(document) == ["model", "name", "backend", "device", "precision", "results", "failures", "accuracy"]
    assert (document["model"], document["failures"], document["accuracy"]) == ("m.onnx", 0, None)
    [entry] = document["results"]
    assert (entry["path"], entry["error"]) == (str(path), None)
    assert [(top["class"], top["label"]) for top in entry["top"]] == [(2, None), (3, None), (0, None)]
    np.testing.assert_allclose([top["probability"] for top in entry["top"]], softmax()[:3], rtol=1e-12)


def test_options_reach_the_engine(engine: FakeEngine, paint: Callable[[str, int], Path]) -> None:
    call("m.onnx", paint("x.png", 0), "--provider", "cpu", "--backend", "onnxruntime", "--threads", 2)
    call("m.pth", paint("x.png", 0), "--recipe", "mine.toml", "--num-heads", 6)
    call("m.pth", paint("x.png", 0), "--keep", "0.7,0.5", "--schedule", "layer", "--ema")
    unset = {
        **dict.fromkeys(("threads", "recipe", "num_heads", "keep", "schedule", "r", "timm", "method")),
        "ema": False,
    }
    assert engine.opened == [  # type: ignore[attr-defined]
        (Path("m.onnx"), {**unset, "backend": "onnxruntime", "provider": "cpu", "threads": 2}),
        (Path("m.pth"), {**unset, "backend": "auto", "provider": "auto", "recipe": "mine.toml", "num_heads": 6}),
        (
            Path("m.pth"),
            {**unset, "backend": "auto", "provider": "auto", "keep": (0.7, 0.5), "schedule": "layer", "ema": True},
        ),
    ]


def test_table_of_one_image(engine: FakeEngine, paint: Callable[[str, int], Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("ant\nbee\n[bold]cat\ndog\n")
    result = call("m.onnx", paint("x.png", 2), "--labels", labels)
    lines = [line for line in result.stdout.splitlines() if "%" in line]
    assert len(lines) == CLASSES  # five asked for, four there
    assert "[bold]cat" in lines[0]
    assert f"{softmax()[0]:.2%}" in lines[0]
    assert "dog" in lines[1]


def test_many_images_a_row_each_in_batches(
    engine: FakeEngine, paint: Callable[[str, int], Path], tmp_path: Path
) -> None:
    for i in range(7):
        paint(f"set/{i}.png", i % CLASSES)
    result = call("m.onnx", tmp_path / "set", "--batch", 3)
    rows = [[cell.strip() for cell in line.rsplit("  ", 2)] for line in result.stdout.splitlines()]
    assert [Path(path).name for path, _, _ in rows] == [f"{i}.png" for i in range(7)]
    assert [label for _, label, _ in rows] == [f"class {i % CLASSES}" for i in range(7)]
    assert engine.batches == [3, 3, 1]


def test_unreadable_images_are_named_and_the_rest_goes_on(
    engine: FakeEngine, paint: Callable[[str, int], Path], tmp_path: Path
) -> None:
    paint("set/a.png", 1)
    (tmp_path / "set" / "b.png").write_bytes(b"no image")
    paint("set/c.png", 3)
    result = call("m.onnx", tmp_path / "set", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["failures"] == 1
    assert [entry["top"][:1] and entry["top"][0]["class"] for entry in document["results"]] == [1, [], 3]
    assert "not an image" in document["results"][1]["error"]
    assert "b.png: not an image" in result.stderr
    assert "1 of 3 images could not be classified" in result.stderr


def test_all_unreadable(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    result = call("m.onnx", tmp_path / "x.png")
    assert (result.exit_code, result.stdout.strip()) == (1, "")
    assert "the file is empty" in result.stderr
    assert engine.batches == []


def test_output_that_is_not_finite_is_a_failure(engine: FakeEngine, paint: Callable[[str, int], Path]) -> None:
    engine._logits = lambda images: np.where(images[:, 0, 0, :1] > 15, np.nan, red_logits(images))
    result = call("m.onnx", paint("a.png", 1), paint("b.png", 2), "--json")
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)["results"]
    assert good["error"] is None
    assert bad["top"] == []
    assert "not finite" in bad["error"]


def test_large_logits_do_not_overflow(engine: FakeEngine, paint: Callable[[str, int], Path]) -> None:
    engine._logits = lambda images: np.float32([[1e4, 0, 1e4, -1e4]])
    [entry] = json.loads(call("m.onnx", paint("a.png", 1), "--json").stdout)["results"]
    assert [(top["class"], top["probability"]) for top in entry["top"]] == [(0, 0.5), (2, 0.5), (1, 0.0), (3, 0.0)]


def test_probabilities_of_the_model_are_taken_when_it_gives_no_logits(
    engine: FakeEngine, paint: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.spec = ModelSpec("p", SIZE, "uint8", CLASSES, ("probabilities",))
    monkeypatch.setattr(engine, "run", lambda images: {"probabilities": np.float32([[0.1, 0.2, 0.4, 0.3]])})
    [entry] = json.loads(call("m.onnx", paint("a.png", 1), "--json").stdout)["results"]
    assert entry["top"][0] == {"class": 2, "label": None, "probability": float(np.float32(0.4))}


def test_notes_on_a_model_of_another_tool(
    engine: FakeEngine, paint: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.spec = ModelSpec("f", SIZE, "uint8", CLASSES, ("scores",))
    monkeypatch.setattr(engine, "run", lambda images: {"scores": red_logits(images)})
    result = call("m.onnx", paint("a.png", 1), "--json")
    assert json.loads(result.stdout)["results"][0]["top"][0]["class"] == 1
    assert "ImageNet transform is used" in result.stderr
    assert "no output called logits; scores, the only [B, classes] there is, is taken for them" in result.stderr


# Accuracy


def test_accuracy_by_class_number(engine: FakeEngine, paint: Callable[[str, int], Path], tmp_path: Path) -> None:
    for folder, number in ((0, 0), (1, 1), (2, 3), (3, 3)):
        paint(f"set/{folder}/x.png", number)
    (tmp_path / "set" / "3" / "y.png").touch()
    result = call("m.onnx", tmp_path / "set", "--accuracy", "--json")
    assert json.loads(result.stdout)["accuracy"] == {"top1": 0.75, "correct": 3, "images": 4}
    assert "top-1 accuracy 75.00% (3 of 4 images)" in call("m.onnx", tmp_path / "set", "--accuracy").stdout


def test_accuracy_by_label_comes_before_class_number(
    engine: FakeEngine, paint: Callable[[str, int], Path], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("3\n2\n1\n0\n")
    paint("set/3/x.png", 0)
    paint("set/1/x.png", 2)
    result = call("m.onnx", tmp_path / "set", "--accuracy", "--labels", labels, "--json")
    assert json.loads(result.stdout)["accuracy"]["top1"] == 1


@pytest.mark.parametrize(
    ("folder", "labels", "reason"),
    [
        ("cat", "", "'cat' is not a class"),
        ("4", "", "'4' is not a class"),
        ("crane", "crane\nx\ncrane\ny", "names 2 classes"),
    ],
)
def test_folder_that_is_no_class(
    engine: FakeEngine, paint: Callable[[str, int], Path], tmp_path: Path, folder: str, labels: str, reason: str
) -> None:
    path = paint(f"{folder}/x.png", 0)
    (tmp_path / "labels.txt").write_text(labels)
    extra = ["--labels", tmp_path / "labels.txt"] if labels else []
    with pytest.raises(InputError, match=reason):
        call("m.onnx", path, "--accuracy", *extra)
    assert engine.batches == []  # said before anything is run


# Usage


def test_an_image_in_place_of_the_model(paint: Callable[[str, int], Path]) -> None:
    a, b = paint("a.png", 0), paint("b.png", 0)
    with pytest.raises(InputError, match="The model comes first"):
        call(a, b)


@pytest.mark.parametrize("option", [("--top-k", 0), ("--batch", 0), ("--threads", 0), ("--provider", "tpu")])
def test_impossible_options(option: tuple[object, ...], paint: Callable[[str, int], Path]) -> None:
    assert call("m.onnx", paint("x.png", 0), *option).exit_code == 2


def test_errors_of_the_engine_pass_through(engine: FakeEngine, paint: Callable[[str, int], Path]) -> None:
    def fail() -> None:
        raise EngineError("out of memory")

    engine._fail = fail
    with pytest.raises(EngineError, match="out of memory"):
        call("m.onnx", paint("x.png", 0))


def test_a_real_model(tmp_path: Path, paint: Callable[[str, int], Path]) -> None:
    from evovit_deploy import export_onnx, random_checkpoint
    from evovit_deploy.images.decode import load_image
    from evovit_deploy.images.transform import preprocess
    from evovit_deploy.recipes import Evolution, Recipe, Structure

    ones = (1.0,) * 4
    recipe = Recipe(
        "tiny",
        "evo_deit",
        Structure(image_size=32, patch_size=8, embed_dim=32, depth=5, num_heads=2, num_classes=CLASSES),
        Evolution(keep_ratios=(*ones, 0.5), tradeoff=(*ones, 0.5), stage_starts=(4,)),
    )
    export_onnx(random_checkpoint(recipe), tmp_path / "tiny.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    result = call(tmp_path / "tiny.onnx", tmp_path / "x.png", paint("y.png", 1), "--json", "--provider", "cpu")
    assert result.exit_code == 0
    assert "random weights" in result.stderr
    document = json.loads(result.stdout)
    assert (document["name"], document["backend"], document["device"]) == ("tiny", "onnxruntime", "cpu")
    with Engine.open(tmp_path / "tiny.onnx", provider="cpu") as engine:
        logits = engine(preprocess(load_image(tmp_path / "x.png"), recipe.transform, 32)[None])["logits"][0]
    expected = np.exp(logits.astype(np.float64))
    top = document["results"][0]["top"]
    assert [entry["class"] for entry in top] == (-logits).argsort(kind="stable").tolist()
    np.testing.assert_allclose(
        [entry["probability"] for entry in top], np.sort(expected / expected.sum())[::-1], atol=1e-5
    )
