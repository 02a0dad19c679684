from __future__ import annotations

import json
from pathlib import Path

import pytest

from evovit_deploy.errors import InputError
from evovit_deploy.evaluate.data import read_dataset
from evovit_deploy.labels import ClassNames

NUMBERS = ClassNames([()] * 3)
NAMES = ClassNames([("n1", "ant"), ("n2", "bee"), ("n3", "cat")])


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("folders", "classes", "labels"),
    [
        (("0", "2"), NUMBERS, (0, 2)),
        (("ant", "n3"), NAMES, (0, 2)),
        (("bee", "1"), NAMES, (1, 1)),
        (("x", "y", "z"), NUMBERS, (0, 1, 2)),  # as torchvision's ImageFolder numbers them
    ],
)
def test_class_folders(tmp_path: Path, folders: tuple[str, ...], classes: ClassNames, labels: tuple[int, ...]) -> None:
    data = read_dataset(make(tmp_path, *(f"{name}/deep/a.png" for name in folders)), classes)
    assert data.labels is not None
    assert sorted(data.labels) == sorted(labels)
    assert bool(data.notes) == (folders in (("x", "y", "z"), ("bee", "1")))


def test_numbers_in_another_order_than_their_text(tmp_path: Path) -> None:
    data = read_dataset(make(tmp_path, *(f"{i}/a.png" for i in range(11))), ClassNames([()] * 11))
    assert {path.parent.name: label for path, label in zip(data.paths, data.labels or ())} == {
        str(i): i for i in range(11)
    }
    assert "ImageFolder numbers them" in data.notes[0]


def test_unknown_class_folders_are_named(tmp_path: Path) -> None:
    make(tmp_path, "ant/a.png", "dog/a.png", "3/a.png")
    with pytest.raises(InputError, match=r"does not know 2 of the 3 class folders: '3' is no class, 'dog' is no class"):
        read_dataset(tmp_path, NAMES)
    with pytest.raises(InputError, match=r"class number, 0 to 3"):
        read_dataset(tmp_path, ClassNames([()] * 4))


def test_ambiguous_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'crane' names 2 classes"):
        read_dataset(make(tmp_path, "crane/a.png"), ClassNames([("crane",), ("crane",)]))


def test_images_outside_class_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    assert read_dataset(tmp_path, NUMBERS).labels is None
    make(tmp_path, "0/c.png")
    data = read_dataset(tmp_path, NUMBERS)
    assert ([path.name for path in data.paths], data.labels) == (["c.png"], (0,))
    assert "2 of 3 images lie in no class folder" in data.notes[0]


@pytest.mark.parametrize("name", ["nothing", "file.txt"])
def test_what_is_no_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").touch()
    with pytest.raises(InputError, match=name):
        read_dataset(tmp_path / name, NUMBERS)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in this folder"):
        read_dataset(tmp_path, NUMBERS)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("path,label\na.png,0\nsub/b.png,2\n", (0, 2)),
        ('\ufefflabel,path,extra\r\nbee,"a, b.png",x\r\nn3,b.png,y\r\n', (1, 2)),
        ("path,label\na.png,\nb.png,\n", None),
        ("path\na.png\nb.png\n", None),
    ],
)
def test_csv(tmp_path: Path, text: str, labels: tuple[int, ...] | None) -> None:
    (tmp_path / "d.csv").write_bytes(text.encode())
    data = read_dataset(tmp_path / "d.csv", NAMES)
    assert data.labels == labels
    assert len(data.paths) == 2
    assert all(path.is_relative_to(tmp_path) for path in data.paths)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds 'nothing'"),
        ("a.png,0\n", "must name the columns path and label; it holds 'a.png, 0'"),
        ("path,label\n", "no image is listed"),
        ("path,label\na.png,0\nb.png,3\n", "line 3: the label '3' is no class. Valid: a class number, 0 to 2"),
        ("path,label\na.png,-1\n", "the label '-1' is no class"),
        ("path,label\na.png,dog\n", "the label 'dog' is no class"),
        ("path,label\na.png,0\nb.png,\n", "line 3: either every image has a label or none"),
        ("path,label\n,0\n", "line 2: the path is ''"),
        ('path,label\n"a.png,0\n', "not CSV"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_dataset(tmp_path / "d.csv", NAMES)
    assert "d.csv" in str(caught.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("path,label\né.png,0\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_dataset(tmp_path / "d.csv", NAMES)


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"path": "a.png", "label": 1}, {"path": "b.png", "label": "cat"}, {"path": "/c.png", "label": "0", "x": 1}]
    (tmp_path / "d.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    data = read_dataset(tmp_path / "d.jsonl", NAMES)
    assert (data.paths, data.labels) == ((tmp_path / "a.png", tmp_path / "b.png", Path("/c.png")), (1, 2, 0))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: must be an object"),
        ('{"label": 1}', "line 2: the path is None"),
        ('{"path": "b.png", "label": 3}', "the label 3 is no class"),
        ('{"path": "b.png", "label": true}', "the label True is no class"),
        ('{"path": "b.png", "label": 1.0}', "the label 1.0 is no class"),
        ('{"path": "b.png"}', "either every image has a label or none"),
    ],
)
def test_wrong_jsonl(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "d.jsonl").write_text('{"path": "a.png", "label": 0}\n' + line + "\n")
    with pytest.raises(InputError, match=reason):
        read_dataset(tmp_path / "d.jsonl", NAMES)


def test_digest_knows_changed_images_and_labels(tmp_path: Path) -> None:
    make(tmp_path, "0/a.png", "1/b.png")
    digests = [read_dataset(tmp_path, NUMBERS).digest(), read_dataset(tmp_path, NUMBERS).digest()]
    assert digests[0] == digests[1]
    (tmp_path / "1" / "b.png").write_bytes(b"x")
    digests.append(read_dataset(tmp_path, NUMBERS).digest())
    (tmp_path / "0" / "a.png").rename(tmp_path / "1" / "a.png")
    digests.append(read_dataset(tmp_path, NUMBERS).digest())
    assert len(set(digests)) == 3
