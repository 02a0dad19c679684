from __future__ import annotations

from pathlib import Path

import pytest

from evovit_deploy.classes.labels import ClassNames, read_labels
from evovit_deploy.errors import InputError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb c\nd\n\n", ["a", "b c", "d"]),
        ("\ufeffa\r\nb\r\nc", ["a", "b", "c"]),
        ("a\r\na\r\nb\r\n\r\n  \r\n", ["a", "a", "b"]),
        ('["a", "b", "c"]', ["a", "b", "c"]),
        ('\ufeff{"b": 1, "a": 0,\r\n "c": 2}\r\n', ["a", "b", "c"]),  # class_to_idx
        ('{"0": 0, "10": 1, "2": 2}', ["0", "10", "2"]),
        ('{"cat": 0, "kitten": 0, "b": 1, "c": 2}', ["kitten", "b", "c"]),
        ('{"model_type": "deit", "id2label": {"0": "a", "1": "b", "2": "c"}}', ["a", "b", "c"]),
        ('{"2": "c", "0": "a", "1": "b"}', ["a", "b", "c"]),
        ('{"0": ["n1", "a"], "1": ["n2", "b"], "2": ["n3", "c"]}', ["a", "b", "c"]),
    ],
)
def test_labels(tmp_path: Path, text: str, shown: list[str]) -> None:
    (tmp_path / "l").write_bytes(text.encode())
    assert [name[-1] for name in read_labels(tmp_path / "l", 3)] == shown


def test_labels_of_windows_powershell(tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes("gr\u00fcn\r\nb\r\n".encode("utf-16"))
    assert read_labels(tmp_path / "l", 2) == [("gr\u00fcn",), ("b",)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a\nb\n", "2 names for a model of 3 classes"),
        (b"a\n\nc\n", "name of class 1 is ''"),
        (b'["a", "b"', "begins like JSON"),
        (b'["a", "b", 3]', "name of class 2 is 3"),
        (b'{"0": "a", "1": "b", "3": "c"}', r'"0" to "2", and 2, 3 are missing or not among'),
        (b'{"a": 0, "b": 1, "c": 3}', 'class numbers must be "0" to "2", and 2, 3 are missing or not among'),
        (b'{"a": 0, "b": 1, "c": 1}', "3 entries for 3 classes.* and 2 is missing"),
        (b'{"a": 0, "b": 1, "c": true}', 'the keys must be "0" to "2"'),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("gr\u00fcn\nb\nc".encode("cp1252"), "not UTF-8.*iconv -f WINDOWS-1252"),
    ],
)
def test_wrong_labels(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "l").write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        read_labels(tmp_path / "l", 3)
    assert str(tmp_path / "l") in str(caught.value)


def test_missing_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file\. It should hold the labels"):
        read_labels(tmp_path / "gone", 3)


def test_numbers_of_names() -> None:
    classes = ClassNames([("n1", "ant"), ("1",), ("bee",), ("bee",), ()])
    assert [classes.number(name) for name in ("n1", "ant", "1", "0", "4")] == [0, 0, 1, 0, 4]
    assert [classes.label(i) for i in range(len(classes))] == ["ant", "1", "bee", "bee", None]
    assert classes.named
    assert not ClassNames.read(None, 3).named
    for name, reason in (
        ("bee", "names 2 classes"),
        ("cat", "is not a class"),
        ("5", "is not a class"),
        ("-1", "is not a class"),
    ):
        with pytest.raises(InputError, match=reason):
            classes.number(name)
