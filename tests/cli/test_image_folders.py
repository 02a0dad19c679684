"""Folders of images as people have them, in every command that reads one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageFile
from typer.testing import CliRunner, Result

from evovit_deploy.cli import app
from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.folder import advice, find_images, formats

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
MEASURED = (
    "--backend",
    "pytorch",
    "--baseline",
    "none",
    "--batch",
    "1",
    "--min-seconds",
    "0",
    "--min-calls",
    "1",
    "--quick",
    "--warmup",
    "0",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Two test images of every digit, in folders 0 to 9."""
    for number in range(10):
        folder = tmp_path / "digits" / str(number)
        folder.mkdir(parents=True)
        for image in sorted((DIGITS / "test" / str(number)).iterdir())[:2]:
            shutil.copy(image, folder)
    return tmp_path / "digits"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def commands(folder: Path) -> dict[str, tuple[object, ...]]:
    file = folder.parent / "file"
    file.touch()
    return {
        "predict --accuracy": ("predict", CHECKPOINT, folder, "--accuracy"),
        "eval": ("eval", CHECKPOINT, "--data", folder, "--workers", 0),
        "explain": ("explain", CHECKPOINT, folder, "-o", folder.parent / "explained", "--limit", 1),
        "verify": ("verify", CHECKPOINT, CHECKPOINT, "--images", folder),
        "bench": ("bench", CHECKPOINT, "--images", folder, *MEASURED, "--json"),
        "sweep": (
            "sweep",
            CHECKPOINT,
            "--data",
            folder,
            "-o",
            file,
        ),  # ends where it cannot write, after the data is read
    }


NAMES = ["predict --accuracy", "eval", "explain", "verify", "bench", "sweep"]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_that_nothing_reads_are_counted_and_named(digits: Path, name: str) -> None:
    for number, lost in enumerate(("IMG_1.HEIC", "IMG_2.heic", "raw.cr2", "notes.txt", "masks.npy")):
        (digits / str(number) / lost).write_bytes(b"x")
    result = call(*commands(digits)[name])
    assert result.exit_code == (1 if name == "sweep" else 0), result.output
    said = " ".join((result.stderr + result.stdout).split())
    assert "left out, as nothing here reads them: 2 .heic, 1 .cr2 (the first: 0/IMG_1.HEIC)" in said
    assert "To read .heic: pip install pillow-heif. Convert .cr2 to JPEG or PNG" in said
    assert ".txt" not in said
    assert str(digits.parent) not in said.partition("left out")[2].partition("(the first")[2][:40]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_nothing_but_these(tmp_path: Path, name: str) -> None:
    (tmp_path / "phone" / "0").mkdir(parents=True)
    (tmp_path / "phone" / "0" / "a.heic").touch()
    result = call(*commands(tmp_path / "phone")[name])
    assert isinstance(result.exception, InputError)
    assert "no image in this folder that can be read, but 1 .heic" in str(result.exception)
    assert "pip install pillow-heif" in str(result.exception)


def test_a_file_named_directly_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(
        InputError, match=r"a\.heic: not an image that Pillow reads .*\. To read \.heic: pip install pillow-heif"
    ):
        load_image(tmp_path / "a.heic")


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("val.tar", "train.tar", "README"):
        (tmp_path / name).touch()
    with pytest.raises(
        InputError, match=r"it holds 2 \.tar, 1 without a suffix \(the first: .*README\)\. Known suffixes: .*\.png"
    ):
        find_images([tmp_path])


@pytest.fixture
def heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """pillow-heif as far as it matters here: an opener of Pillow by that name, for files that begin with HEIF."""

    class Toy(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._mode, self._size = "RGB", (2, 2)
            self.tile = []

        def load(self) -> Any:
            self.im = Image.new("RGB", (2, 2), (255, 0, 0)).im
            return None

    module = ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", Toy, lambda head: head[:4] == b"HEIF")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    formats.cache_clear()
    yield
    formats.cache_clear()


def test_pillow_heif_is_used_where_it_is_installed(tmp_path: Path, heif: None) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"HEIF")
    (tmp_path / "b.psd").touch()
    notes: list[str] = []
    assert find_images([tmp_path], notes) == [tmp_path / "a.HEIC"]
    assert ["1 .psd" in note and "pip" not in note for note in notes] == [True]
    assert load_image(tmp_path / "a.HEIC").getpixel((0, 0)) == (255, 0, 0)
    assert advice([".heic", ".hif"]) == ""


def test_a_pillow_without_avif_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "OPEN", {name: opener for name, opener in Image.OPEN.items() if name != "AVIF"})
    formats.cache_clear()
    try:
        (tmp_path / "a.avif").touch()
        with pytest.raises(InputError, match=r'but 1 \.avif .*To read \.avif: pip install "pillow>=11\.3"'):
            find_images([tmp_path])
    finally:
        formats.cache_clear()


# The order of class folders


@pytest.fixture
def from_one(digits: Path) -> Path:
    """Folders 1 to 10, as timm's own reader would have numbered them."""
    for number in range(9, -1, -1):
        (digits / str(number)).rename(digits / str(number + 1))
    return digits


def accuracy(name: str, result: Result) -> float:
    if name == "predict --accuracy":
        return float(json.loads(result.stdout)["accuracy"]["top1"])
    if name == "eval":
        return float(json.loads(result.stdout)["accuracy"]["top1"]["value"])
    return float(json.loads(result.stdout)["subjects"][0]["facts"]["top1"])


@pytest.mark.parametrize("name", ["predict --accuracy", "eval", "bench"])
def test_the_order_in_doubt_is_shown_and_can_be_chosen(from_one: Path, name: str) -> None:
    words = [*commands(from_one)[name], *([] if name == "bench" else ["--json"])]
    result = call(*words)
    said = result.stderr + result.stdout
    assert "Taken: text order, as torchvision's ImageFolder does (1 = 0, 10 = 1, 2 = 2, ...)" in said
    assert "In natural order, as timm's own reader does, they are (1 = 0, 2 = 1, 3 = 2, ...)" in said
    assert accuracy(name, result) < 0.5
    result = call(*words, "--class-order", "natural")
    assert "as timm's own reader does" not in result.stderr + result.stdout
    assert accuracy(name, result) > 0.8


def test_eval_says_which_order_fits_the_answers(from_one: Path) -> None:
    (from_one / "labels.json").write_text(json.dumps({str(i + 1): i for i in range(10)}))
    result = call("eval", CHECKPOINT, "--data", from_one, "--workers", 0, "--json")
    assert "the answers fit the class folders in natural order better" in result.stderr
    assert any("--class-order natural" in note for note in json.loads(result.stdout)["notes"])
    for chosen in (("--class-order", "natural"), ("--labels", from_one / "labels.json")):
        result = call("eval", CHECKPOINT, "--data", from_one, "--workers", 0, "--json", *chosen)
        assert "warning" not in result.stderr
        assert accuracy("eval", result) > 0.8


def test_sweep_takes_the_order(from_one: Path) -> None:
    result = call(*commands(from_one)["sweep"])
    assert isinstance(result.exception, OutputError)
    assert "warning: the model does not say in which order" in result.stderr
    assert "warning" not in call(*commands(from_one)["sweep"], "--class-order", "text").stderr


def test_an_order_without_a_use(digits: Path) -> None:
    result = call("predict", CHECKPOINT, digits, "--class-order", "text")
    assert isinstance(result.exception, InputError)
    assert "--class-order goes with --accuracy" in str(result.exception)
