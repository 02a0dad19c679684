from __future__ import annotations

import json
from pathlib import Path

import pytest

from evovit_deploy.classes.labels import ClassNames
from evovit_deploy.errors import InputError
from evovit_deploy.evaluate.data import read_dataset

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
        (("1", "2", "3"), NUMBERS, (0, 1, 2)),  # not class numbers, as 3 is none
    ],
)
def test_class_folders(tmp_path: Path, folders: tuple[str, ...], classes: ClassNames, labels: tuple[int, ...]) -> None:
    data = read_dataset(make(tmp_path, *(f"{name}/deep/a.png" for name in folders)), classes)
    assert data.labels is not None
    assert sorted(data.labels) == sorted(labels)
    assert bool(data.notes) == (folders in (("x", "y", "z"), ("bee", "1"), ("1", "2", "3")))


def test_numbers_in_another_order_than_their_text(tmp_path: Path) -> None:
    data = read_dataset(make(tmp_path, *(f"{i}/a.png" for i in range(11))), ClassNames([()] * 11))
    assert {path.parent.name: label for path, label in zip(data.paths, data.labels or ())} == {
        str(i): i for i in range(11)
    }
    (warning,) = data.warnings
    assert "Taken: natural order, as timm's own reader does (..., 1 = 1, 2 = 2, 3 = 3, ...)" in warning
    assert "In text order, as torchvision's ImageFolder does, they are (..., 1 = 1, 10 = 2, 2 = 3, ...)" in warning
    assert data.other is not None
    assert (data.other.order, data.other.labels[10], data.other.labels[2]) == ("text", 2, 3)
    chosen = read_dataset(tmp_path, ClassNames([()] * 11), "text")
    assert {path.parent.name: label for path, label in zip(chosen.paths, chosen.labels or ())}["10"] == 2
    assert not chosen.warnings


ORDERS = [
    [f"class_{i}" for i in range(1, 11)],
    [str(i) for i in range(1, 11)],
    ["Bee", "ant", "Cat"],
    ["img10_1", "img9_2", "img9_10"],
]


@pytest.mark.parametrize("names", ORDERS)
def test_orders_are_those_of_the_two_readers(tmp_path: Path, names: list[str]) -> None:
    """Of torchvision's ImageFolder and of timm's reader, both asked."""
    from timm.data.readers.reader_image_folder import find_images_and_targets
    from torchvision.datasets.folder import find_classes

    make(tmp_path, *(f"{name}/a.png" for name in names))
    classes = ClassNames([()] * len(names))
    readers = {"text": find_classes(str(tmp_path))[1], "natural": find_images_and_targets(str(tmp_path))[1]}
    assert readers["text"] != readers["natural"]
    for order, numbers in readers.items():
        data = read_dataset(tmp_path, classes, order)  # type: ignore[arg-type]
        assert {path.parent.name: label for path, label in zip(data.paths, data.labels or ())} == numbers
        assert (data.warnings, data.other) == ((), None)
    undecided = read_dataset(tmp_path, classes)
    assert {path.parent.name: label for path, label in zip(undecided.paths, undecided.labels or ())} == readers["text"]
    (warning,) = undecided.warnings
    assert "--class-order" in warning
    first = next(i for i, (a, b) in enumerate(zip(sorted(names), readers["natural"])) if a != b)
    for numbers in readers.values():
        name = next(name for name, number in numbers.items() if number == first)
        assert f"{name} = {first}" in warning
    assert undecided.other is not None
    natural = {
        path.parent.name: undecided.other.labels[label] for path, label in zip(undecided.paths, undecided.labels or ())
    }
    assert natural == readers["natural"]


def test_an_empty_class_folder_keeps_its_number(tmp_path: Path) -> None:
    make(tmp_path, "a/x.png", "b/notes.txt", "c/x.png", ".cache/x.png")
    for order in (None, "text", "natural"):
        data = read_dataset(tmp_path, NUMBERS, order)  # type: ignore[arg-type]
        assert data.labels == (0, 2)
        assert "1 class folder holds no image that can be read: b. The other classes keep their numbers" in data.notes
    assert read_dataset(tmp_path, ClassNames([()] * 2)).labels == (0, 1)  # b is none of two classes


def test_an_empty_folder_shows_that_numbers_start_at_1(tmp_path: Path) -> None:
    make(tmp_path, "1/x.png", "2/x.png", "3/notes.txt")
    assert read_dataset(tmp_path, NUMBERS).labels == (0, 1)


def test_an_order_for_some_of_the_numbers(tmp_path: Path) -> None:
    make(tmp_path, "2/x.png", "10/x.png")
    assert read_dataset(tmp_path, ClassNames([()] * 12), "text").labels == (2, 4)  # 0, 1, 10, 11, 2


def test_what_no_order_can_be_right_for(tmp_path: Path) -> None:
    make(tmp_path, "cat/x.png", "ant/x.png")
    with pytest.raises(InputError, match=r"one for each of the model's 3 classes, and .* has 2. Add an empty folder"):
        read_dataset(tmp_path, NUMBERS, "text")
    make(tmp_path, "bee/x.png")
    names = ClassNames([("bee",), ("ant",), ("cat",)])
    assert read_dataset(tmp_path, names).labels == (1, 0, 2)
    with pytest.raises(InputError, match="makes the folder ant class 0, and by --labels it is class 1"):
        read_dataset(tmp_path, names, "text")
    (tmp_path / "d.csv").write_text("path,label\na.png,0\n")
    with pytest.raises(InputError, match="--class-order is for class folders"):
        read_dataset(tmp_path / "d.csv", NUMBERS, "text")


def test_labels_that_are_not_the_folders_names(tmp_path: Path) -> None:
    """An order numbers the folders, and the labels are only shown."""
    make(tmp_path, "n1/x.png", "n2/x.png", "n3/x.png")
    names = ClassNames([("ant",), ("bee",), ("cat",)])
    with pytest.raises(InputError, match="--class-order text or natural"):
        read_dataset(tmp_path, names)
    assert read_dataset(tmp_path, names, "natural").labels == (0, 1, 2)


def test_the_parts_of_a_data_set_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, "train/a/x.png", "val/a/x.png")
    with pytest.raises(InputError, match="train looks like a part of a data set"):
        read_dataset(tmp_path, NUMBERS)


def test_pictures_that_nothing_here_reads(tmp_path: Path) -> None:
    make(tmp_path, "0/a.png", "0/b.cr2", "1/c.psd", "1/readme.txt")
    data = read_dataset(tmp_path, NUMBERS)
    assert data.labels == (0,)
    assert "1 .cr2, 1 .psd" in data.warnings[0]
    assert "1 class folder holds no image that can be read: 1." in data.notes[0]


def test_unknown_class_folders_are_named(tmp_path: Path) -> None:
    make(tmp_path, "ant/a.png", "dog/a.png", "3/a.png")
    with pytest.raises(
        InputError, match=r"does not know 2 of the 3 class folders: '3' is not a class, 'dog' is not a class"
    ):
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
        ("path,label\na.png,0\nb.png,3\n", "line 3: the label '3' is not a class. Valid: a class number, 0 to 2"),
        ("path,label\na.png,-1\n", "the label '-1' is not a class"),
        ("path,label\na.png,dog\n", "the label 'dog' is not a class"),
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


WINDOWS = "path;label\r\nphotos\\gr\u00fcn 1.png;bee\r\nb.png;n3\r\n;\r\n"


@pytest.mark.parametrize(
    ("data", "noted"),
    [
        (WINDOWS.encode("utf-8-sig"), []),
        (WINDOWS.encode("utf-16"), []),
        (WINDOWS.encode("cp1252"), ["is not UTF-8 and was read as Windows-1252"]),
        (("sep=;\r\n" + WINDOWS).encode("cp1252"), ["is not UTF-8 and was read as Windows-1252"]),
        (WINDOWS.replace(";", "\t").replace("path", "Path").encode(), []),
        (WINDOWS.replace(";", ",").replace("label", " LABEL ").encode(), []),
    ],
)
def test_csv_from_windows(tmp_path: Path, data: bytes, noted: list[str]) -> None:
    make(tmp_path, "photos/gr\u00fcn 1.png", "b.png")
    (tmp_path / "d.csv").write_bytes(data)
    found = read_dataset(tmp_path / "d.csv", NAMES)
    assert [path.relative_to(tmp_path).parts for path in found.paths] == [("photos", "gr\u00fcn 1.png"), ("b.png",)]
    assert all(path.exists() for path in found.paths)
    assert found.labels == (1, 2)
    assert len(found.notes) == len(noted) + 1
    assert "1 of 2 paths are written with backslashes" in found.notes[-1]
    assert all(text in note for text, note in zip(noted, found.notes))


def test_a_backslash_in_a_name_is_kept(tmp_path: Path) -> None:
    make(tmp_path, "a\\b.png")
    (tmp_path / "d.csv").write_text("path,label\na\\b.png,0\n")
    data = read_dataset(tmp_path / "d.csv", NUMBERS)
    assert (data.paths[0].exists(), data.notes) == (True, ())


def test_lines_are_counted_below_the_separator(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("sep=;\npath;label\na.png;0\nb.png;dog\n")
    with pytest.raises(InputError, match="line 4: the label 'dog' is not a class"):
        read_dataset(tmp_path / "d.csv", NAMES)


def test_csv_in_no_encoding(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"path,label\n\x81.png,0\n")
    with pytest.raises(InputError, match=r"not UTF-8.*iconv"):
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
        ('{"path": "b.png", "label": 3}', "the label 3 is not a class"),
        ('{"path": "b.png", "label": true}', "the label True is not a class"),
        ('{"path": "b.png", "label": 1.0}', "the label 1.0 is not a class"),
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
