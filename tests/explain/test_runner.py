from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evovit_deploy import load_checkpoint
from evovit_deploy.engines import OrtEngine, TorchEngine
from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.explain import explain
from evovit_deploy.models.options import ModelOptions

skimage = pytest.importorskip("skimage")
PHOTOGRAPHS = [Path(skimage.__file__).parent / "data" / name for name in ("chelsea.png", "coffee.png", "camera.png")]


class Links(HTMLParser):
    """Everything in a page that points somewhere, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(gallery: Path) -> Links:
    page = Links()
    page.feed(gallery.read_text(encoding="utf-8"))
    return page


def test_photographs(module_engine: TorchEngine, tmp_path: Path) -> None:
    done: list[int] = []
    result = explain(module_engine, PHOTOGRAPHS, tmp_path / "a" / "b", on_progress=done.append)
    assert done == [1, 2, 3]
    assert [path.name for path in result.pictures] == ["0001_chelsea.png", "0002_coffee.png", "0003_camera.png"]
    for path in result.pictures:
        assert Image.open(path).size == (5 * (320 + 12) + 12, 28 + 22 + 320 + 24)  # input, 2 x (attention, kept)
    page = parsed(result.gallery)
    assert page.tags.count("article") == 3
    assert page.tags.count("img") == 3 * 5 + 2
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "default-src 'none'" in result.gallery.read_text()
    assert not re.search(r"https?://|@import|url\(", result.gallery.read_text())
    assert "Class attention runs from dark" in page.text
    document = json.loads(json.dumps(result.to_dict()))
    assert [len(kept) for kept in document["images"][0]["kept"]] == [8, 4]
    assert document["images"][0]["reference"] is None


def test_against_another_engine(module_engine: TorchEngine, onnx_engine: OrtEngine, tmp_path: Path) -> None:
    result = explain(onnx_engine, PHOTOGRAPHS[:2], tmp_path, reference=module_engine)
    assert [part["stability"] for part in result.summary["selections"]] == [1, 1]
    assert result.summary["same_class"] == 2
    page = parsed(result.gallery)
    assert "Class attention" not in page.text
    assert "the same in both" in page.text
    assert "(differs)" not in page.text


def test_other_selections_cannot_be_compared(module_engine: TorchEngine, checkpoint: object, tmp_path: Path) -> None:
    import dataclasses
    from typing import Any

    from evovit_deploy.models.options import ModelOptions

    other: Any = checkpoint
    evolution = other.recipe.evolution.with_keep((0.75, 0.25))
    other = dataclasses.replace(other, recipe=dataclasses.replace(other.recipe, evolution=evolution))
    reference = TorchEngine.from_checkpoint(other, ModelOptions(outputs=("logits", "kept")), provider="cpu")
    with pytest.raises(InputError, match="8 of 16, 4 of 16 against 12 of 16, 4 of 16"):
        explain(module_engine, PHOTOGRAPHS[:1], tmp_path, reference=reference)


def test_hostile_and_equal_names(module_engine: TorchEngine, tmp_path: Path) -> None:
    names = ["a/<script>alert(1)<.png", "b/<script>alert(1)<.png", 'a/"é 日本 &amp;.png']
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PHOTOGRAPHS[0], tmp_path / name)
    result = explain(module_engine, [tmp_path / name for name in names], tmp_path / "out")
    assert len({path.name for path in result.pictures}) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) for path in result.pictures)
    page = parsed(result.gallery)
    assert page.tags.count("script") == 1
    assert page.text.count("<script>alert(1)<.png") == 2 * 2  # in the list and above the picture
    assert '"é 日本 &amp;.png' in page.text


def test_limit_and_unreadable_images(module_engine: TorchEngine, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    reported: list[Path] = []
    result = explain(
        module_engine,
        [tmp_path / "bad.png", *PHOTOGRAPHS],
        tmp_path / "out",
        limit=2,
        on_failure=lambda path, reason: reported.append(path),
    )
    assert reported == [tmp_path / "bad.png"]
    assert (len(result.pictures), result.summary["images"], len(result.images)) == (2, 3, 3)
    assert "The first 2 of 3 images are shown" in parsed(result.gallery).text
    with pytest.raises(InputError, match=r"none of the 1 images could be read; .*empty"):
        explain(module_engine, [tmp_path / "bad.png"], tmp_path / "nothing")
    assert list((tmp_path / "nothing").iterdir()) == []


def test_one_image_has_no_pages_to_turn(module_engine: TorchEngine, tmp_path: Path) -> None:
    gallery = explain(module_engine, PHOTOGRAPHS[:1], tmp_path).gallery.read_text()
    assert "Over all 1 image<" in gallery


def test_a_folder_that_cannot_be_made(module_engine: TorchEngine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        explain(module_engine, PHOTOGRAPHS[:1], tmp_path / "file" / "out")


def test_kept_patches_in_the_picture_are_the_images_own(module_engine: TorchEngine, tmp_path: Path) -> None:
    """The part that is drawn is the part that the model saw, at the same place."""
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:, 64:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    result = explain(module_engine, [tmp_path / "half.png"], tmp_path / "out")
    sheet = np.asarray(Image.open(result.pictures[0]))
    top = 28 + 22 + 6
    assert sheet[top + 10 : top + 300, 12 + 10 : 12 + 150].max() == 0
    assert sheet[top + 10 : top + 300, 12 + 170 : 12 + 310].min() == 255


def test_the_picture_of_the_docs_is_what_the_documented_command_draws(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    digits = root / "examples" / "digits"
    paths = [sorted(folder.glob("*.png"))[0] for folder in sorted((digits / "test").iterdir())]
    options = ModelOptions(outputs=("logits", "kept"))
    with TorchEngine.from_checkpoint(
        load_checkpoint(digits / "evo_deit_digits.pth"), options, provider="cpu"
    ) as engine:
        result = explain(engine, paths, tmp_path)
    assert result.overview == tmp_path / "overview.png"
    shown = root / "docs" / "images" / "kept.png"
    pictures = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (result.overview, shown)]
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 1  # versions of Pillow may round and draw letters differently
    assert shown.stat().st_size < 200_000


def test_an_overview_that_evovit_did_not_draw_is_kept(module_engine: TorchEngine, tmp_path: Path) -> None:
    (tmp_path / "overview.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"overview\.png exists, and evovit did not write it"):
        explain(module_engine, PHOTOGRAPHS[:1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["overview.png"]
