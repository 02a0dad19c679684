from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.evaluate import Dataset, Progress, evaluate, read_dataset
from evovit_deploy.evaluate.runner import Subject
from evovit_deploy.recipes import Transform

from .conftest import CLASSES, NAMES, red_logits

Paint = Callable[[str, int], Path]
Make = Callable[..., Subject]


@pytest.fixture
def data(paint: Paint, tmp_path: Path) -> Dataset:
    """12 images, the last of each class painted as the next class."""
    for number in range(CLASSES):
        for i in range(3):
            paint(f"set/{number}/{i}.png", (number + (i == 2)) % CLASSES)
    return read_dataset(tmp_path / "set", NAMES)


def test_accuracy(subject: Make, data: Dataset) -> None:
    document = evaluate(subject(), data, NAMES, batch_size=5).to_dict()
    assert document["accuracy"]["top1"]["hits"] == 8
    assert document["accuracy"]["top5"] is None  # of four classes
    assert [row["images"] for row in document["accuracy"]["classes"]] == [3] * CLASSES
    assert [row["most_taken_for"] for row in document["accuracy"]["classes"]] == [1, 2, 3, 0]
    assert (document["reference"], document["comparison"], document["failures"]) == (None, None, [])
    sure = np.exp(0) / np.exp(-np.arange(CLASSES)).sum()
    assert document["accuracy"]["ece"] == pytest.approx(abs(8 / 12 - sure))


def test_batches_are_full_and_static_batches_go_before(subject: Make, data: Dataset) -> None:
    model = subject()
    evaluate(model, data, NAMES, batch_size=5)
    assert model.engine.batches == [5, 5, 2]  # type: ignore[attr-defined]
    model.engine.spec = dataclasses.replace(model.engine.spec, batch=4)
    evaluate(model, data, NAMES, batch_size=5)
    assert model.engine.batches[3:] == [4, 4, 4]  # type: ignore[attr-defined]


def test_against_a_reference(subject: Make, data: Dataset) -> None:
    def other(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        logits = red_logits(images)
        logits[logits.argmax(1) == 3] = [9, 0, 0, 0]  # what looks like 3 it calls 0
        return logits

    document = evaluate(subject(), data, NAMES, reference=subject(other)).to_dict()
    comparison = document["comparison"]
    # What looks like 3: two of class 3 (the model is right) and one of class 2 (neither is).
    assert (comparison["agreement"]["hits"], comparison["agreement"]["count"]) == (9, 12)
    assert (comparison["only_model_right"], comparison["only_reference_right"]) == (2, 0)
    assert comparison["mcnemar_p"] == 0.5
    found = [(flip["label"], flip["model"], flip["reference"], flip["kind"]) for flip in comparison["flips"]]
    assert found == [(2, 3, 0, "other"), (3, 3, 0, "gained"), (3, 3, 0, "gained")]
    assert Path(comparison["flips"][1]["path"]).name == "0.png"
    assert document["reference_accuracy"]["top1"]["hits"] == 6


def test_without_labels(subject: Make, paint: Paint, tmp_path: Path) -> None:
    paint("flat/a.png", 1)
    paint("flat/b.png", 2)
    data = read_dataset(tmp_path / "flat", NAMES)
    with pytest.raises(InputError, match=r"has no labels.*--against REFERENCE"):
        evaluate(subject(), data, NAMES)
    document = evaluate(
        subject(), data, NAMES, reference=subject(lambda x: np.eye(CLASSES)[np.ones(len(x), int)])
    ).to_dict()
    assert document["accuracy"] is None
    assert document["comparison"]["agreement"]["hits"] == 1
    assert document["comparison"]["mcnemar_p"] is None
    assert document["comparison"]["flips"][0]["kind"] is None


def test_each_model_has_its_own_transform(subject: Make, tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (100, 100), (10, 0, 0))
    image.paste((20, 0, 0), (40, 40, 60, 60))
    (tmp_path / "set" / "0").mkdir(parents=True)
    image.save(tmp_path / "set" / "0" / "a.png")
    seen: list[Any] = []

    def look(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen.append(images)
        return np.zeros((len(images), CLASSES), np.float32)

    wide, near, floating = subject(look), subject(look), subject(look)
    wide.engine.spec = dataclasses.replace(wide.engine.spec, transform=Transform(resize_ratio=1))
    near.engine.spec = dataclasses.replace(near.engine.spec, transform=Transform(resize_ratio=5), image_size=16)
    evaluate(wide, read_dataset(tmp_path / "set", NAMES), NAMES, reference=near)
    assert [images.shape for images in seen] == [(1, 8, 8, 3), (1, 16, 16, 3)]
    assert seen[0][0, 0, 0, 0] == 10  # the corner of the whole image
    assert seen[1][0, 0, 0, 0] == 20  # the middle fifth of it
    floating.engine.spec = dataclasses.replace(floating.engine.spec, input="float32")
    evaluate(floating, read_dataset(tmp_path / "set", NAMES), NAMES)
    assert seen[2].shape == (1, 3, 8, 8)
    assert seen[2][0, 0, 0, 0] == pytest.approx((10 / 255 - 0.485) / 0.229)


def test_failures_are_named_and_counted_apart(subject: Make, data: Dataset, tmp_path: Path) -> None:
    data.paths[0].write_bytes(b"")
    data.paths[4].write_bytes(data.paths[3].read_bytes()[:40])
    data.paths[5].unlink()

    def sick(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        logits = red_logits(images)
        logits[logits.argmax(1) == 3] = np.nan
        return logits

    reported: list[tuple[Path, str]] = []
    result = evaluate(
        subject(), data, NAMES, reference=subject(sick), batch_size=5, on_progress=lambda p: reported.extend(p.failures)
    )
    assert [data.paths.index(path) for path, _ in result.failures] == [0, 4, 5, 8, 9, 10]
    reasons = ["the file is empty", "truncated|cannot be read|not an image", "No such file", *["not finite"] * 3]
    for (_, reason), expected in zip(result.failures, reasons):
        assert any(part in reason for part in expected.split("|")), reason
    assert reported == result.failures
    assert result.evaluated == 6
    assert [accuracy.images.total() for accuracy in result.accuracy] == [6, 6]  # the same images for both


def test_nothing_readable(subject: Make, data: Dataset) -> None:
    for path in data.paths:
        path.write_bytes(b"no image")
    document = evaluate(subject(), data, NAMES).to_dict()
    assert (document["evaluated"], document["accuracy"]["top1"]["value"], document["accuracy"]["ece"]) == (
        0,
        None,
        None,
    )


def test_predictions_are_a_data_set_again(subject: Make, data: Dataset, tmp_path: Path) -> None:
    data.paths[1].write_bytes(b"")
    out = tmp_path / "p.csv"
    evaluate(subject(), data, NAMES, reference=subject(), predictions=out)
    with open(out, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [str(label) for label in data.labels or ()]
    assert (rows[0]["prediction"], rows[0]["correct"], rows[0]["agree"], rows[0]["top5"]) == ("0", "1", "1", "0 1 2 3")
    assert (rows[1]["prediction"], rows[1]["error"]) == ("", "the file is empty.") or "empty" in rows[1]["error"]
    assert rows[2]["correct"] == "0"
    again = read_dataset(out, NAMES)
    assert (again.paths, again.labels) == (tuple(path.absolute() for path in data.paths), data.labels)


@pytest.mark.parametrize("after", range(4))
def test_an_interrupted_run_goes_on_and_repeats_nothing(
    subject: Make, data: Dataset, own_cache: Path, after: int, tmp_path: Path
) -> None:
    whole = evaluate(subject(), data, NAMES, batch_size=3).to_dict()
    seen: list[int] = []

    def interrupt() -> None:
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(1)

    model = subject(fail=interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, data, NAMES, batch_size=3, predictions=tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()
    assert len(list(own_cache.iterdir())) == 1
    model.engine._fail = None  # type: ignore[attr-defined]
    states: list[Progress] = []
    rest = evaluate(model, data, NAMES, batch_size=2, on_progress=states.append, predictions=tmp_path / "p.csv")
    assert rest.resumed == states[0].done == 3 * after
    assert sum(model.engine.batches) == 12  # type: ignore[attr-defined]
    document = rest.to_dict()
    for one in (whole, document):
        one.pop("resumed"), one["model"].pop("path")
    assert document == whole
    assert list(own_cache.iterdir()) == []


def test_another_model_data_or_transform_does_not_go_on(
    subject: Make, data: Dataset, own_cache: Path, paint: Paint, tmp_path: Path
) -> None:
    calls: list[int] = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt

    model, reference = subject(fail=interrupt), subject()

    def resumed(*args: Any, **options: Any) -> int:
        states: list[Progress] = []
        with pytest.raises(KeyboardInterrupt):
            evaluate(*args, NAMES, batch_size=3, on_progress=states.append, **options)
        return states[0].resumed

    assert resumed(model, data) == 0
    calls.clear()
    assert resumed(model, data) == 3
    assert resumed(model, data, reference=reference) == 0
    assert resumed(model, data, restart=True) == 0
    paint("set/0/0.png", 3)
    assert resumed(model, read_dataset(tmp_path / "set", NAMES)) == 0
    model.engine.spec = dataclasses.replace(model.engine.spec, transform=Transform(resize_ratio=1))
    assert resumed(model, data) == 0


def test_results_that_cannot_be_written_are_not_lost(
    subject: Make, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evovit_deploy.evaluate import runner

    model = subject()
    with pytest.raises(OutputError, match="does not exist"):
        evaluate(model, data, NAMES, predictions=tmp_path / "gone" / "p.csv")
    assert model.engine.batches == []  # type: ignore[attr-defined]

    def full(*args: Any, **options: Any) -> None:
        raise OutputError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_predictions", full)
        with pytest.raises(OutputError, match="disk full"):
            evaluate(model, data, NAMES, predictions=tmp_path / "p.csv")
    evaluate(model, data, NAMES, predictions=tmp_path / "p.csv")
    assert sum(model.engine.batches) == 12  # type: ignore[attr-defined]
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 13


def test_models_of_other_classes(subject: Make, data: Dataset) -> None:
    with pytest.raises(InputError, match="4 and 7 classes"):
        evaluate(subject(), data, NAMES, reference=subject(num_classes=7))


def test_a_checkpoint_is_known_by_its_weights_and_schedule(tmp_path: Path) -> None:
    from evovit_deploy import random_checkpoint
    from evovit_deploy.engines import TorchEngine
    from evovit_deploy.recipes import Evolution, Recipe, Structure

    structure = Structure(image_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=1, num_classes=4)
    keys = []
    for ratio, seed in ((0.5, 0), (0.5, 0), (0.7, 0), (0.5, 1)):
        recipe = Recipe("t", "evo_deit", structure, Evolution((1, ratio), (1, 0.5), stage_starts=(1,)))
        engine = TorchEngine.from_checkpoint(random_checkpoint(recipe, seed), provider="cpu")
        keys.append(Subject(engine, tmp_path / "same.pth").key()["weights"])
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
