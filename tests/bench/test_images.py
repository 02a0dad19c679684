"""What is measured with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.bench.accuracy import labelled, top1
from evovit_deploy.bench.images import choose_images
from evovit_deploy.classes.labels import ClassNames
from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of four grey images; class n is n shades lighter."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        for index in range(4):
            Image.new("RGB", (20, 20), (80 * number,) * 3).save(tmp_path / str(number) / f"{index}.png")
    return tmp_path


def test_the_shipped_photographs_are_the_default() -> None:
    found = choose_images("sample", FakeEngine().spec, 20)
    assert found.images.shape == (8, 3, 8, 8)
    assert len(np.unique(found.images.reshape(8, -1), axis=0)) == 8
    assert "photographs" in found.described
    assert found.files == ()


def test_a_folder_is_sampled_across_its_classes(folder: Path) -> None:
    found = choose_images(str(folder), FakeEngine(image_input="uint8").spec, 6)
    assert found.images.dtype == np.uint8
    assert found.images.shape == (6, 8, 8, 3)
    assert set(found.images[:, 0, 0, 0].tolist()) == {0, 80, 160}
    assert len(found.files) == 12
    assert str(folder) not in found.described


@pytest.mark.parametrize("source", ["noise", "synthetic"])
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_generated_images(source: str, kind: str) -> None:
    spec = FakeEngine(image_input=kind).spec
    first, again = (choose_images(source, spec, 5, seed=2).images for _ in range(2))
    assert first.dtype == kind
    assert len(np.unique(first.reshape(5, -1), axis=0)) == 5
    assert np.array_equal(first, again)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        choose_images("photos", FakeEngine().spec, 1)
    with pytest.raises(InputError, match="no image in this folder"):
        choose_images(str(tmp_path), FakeEngine().spec, 1)


def test_accuracy(folder: Path) -> None:
    def shade(images: np.ndarray) -> np.ndarray:
        """Right for classes 0 and 2; class 1 is taken for 2."""
        number = images[:, 0, 0, 0] // 80
        return np.eye(10, dtype=np.float32)[np.where(number == 1, 2, number)]

    engine = FakeEngine(image_input="uint8", logits=shade, max_batch=5)
    files = choose_images(str(folder), engine.spec, 1).files
    truth = labelled(files, ClassNames([()] * 10))
    assert isinstance(truth, tuple)
    assert truth[1] == ()
    assert top1(engine, truth[0]) == pytest.approx(8 / 12)


def test_folders_that_are_no_classes_are_not_labelled(folder: Path) -> None:
    (folder / "0").rename(folder / "cats")
    why = labelled(choose_images(str(folder), FakeEngine().spec, 1).files, ClassNames([()] * 10))
    assert isinstance(why, str)
    assert "'cats' is not a class" in why
    assert str(folder) not in why
    names = [("cats",), ("dogs",), ("birds",), *([("x",)] * 7)]
    truth = labelled(choose_images(str(folder), FakeEngine().spec, 1).files, ClassNames(names))
    assert isinstance(truth, tuple)
    assert sorted(truth[0].values()) == [0] * 4 + [1] * 4 + [2] * 4
