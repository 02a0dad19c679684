from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.evaluate.journal import Row, open_journal

ROWS = [Row((((1, 0.75), (0, 0.25)),)), Row(error='truncated "é\n"'), Row((((0, 1 / 3),), ((2, 1.0),)))]


def filled(path: Path, key: str = "key") -> list[Row]:
    with open_journal(path, key) as journal:
        return list(journal.rows())


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    with open_journal(tmp_path / "deep" / "j", "key") as journal:
        journal.append(ROWS[:2])
        journal.append(ROWS[2:])
        assert list(journal.rows()) == ROWS
    with open_journal(tmp_path / "deep" / "j", "key") as journal:
        assert journal.count == 3
        assert list(journal.rows()) == ROWS


@given(st.data())
def test_cut_anywhere_loses_only_what_was_cut(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        with open_journal(path, "key") as journal:
            journal.append(ROWS)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0\0\0", b'{"i":1}\n', b'{"i":9,"e":"x"}\n'])))
        complete = max(0, whole[:cut].count(b"\n") - 1)
        with open_journal(path, "key") as journal:
            assert journal.count == complete
            journal.append(ROWS[complete:])
        assert path.read_bytes() == whole


def test_another_key_or_a_fresh_start_begins_again(tmp_path: Path) -> None:
    with open_journal(tmp_path / "j", "key") as journal:
        journal.append(ROWS)
    assert filled(tmp_path / "j", "other") == []
    with open_journal(tmp_path / "j", "other") as journal:
        journal.append(ROWS)
    with open_journal(tmp_path / "j", "other", fresh=True) as journal:
        assert journal.count == 0


def test_discarded_when_all_is_done(tmp_path: Path) -> None:
    with open_journal(tmp_path / "j", "key") as journal:
        journal.append(ROWS)
        journal.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX systems")
def test_two_runs_at_once(tmp_path: Path) -> None:
    with open_journal(tmp_path / "j", "key"), pytest.raises(InputError, match="another process is evaluating"):
        open_journal(tmp_path / "j", "key")
    assert filled(tmp_path / "j") == []  # free again


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="EVOVIT_CACHE"):
        open_journal(tmp_path / "file" / "j", "key")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_keeps_what_is_there(tmp_path: Path) -> None:
    with open_journal(tmp_path / "j", "key") as journal:
        journal.append(ROWS[:1])
        real, journal._handle = journal._handle, os.open("/dev/full", os.O_RDWR)
        with pytest.raises(OutputError, match="No space left"):
            journal.append(ROWS[1:])
        os.close(journal._handle)
        journal._handle = real
    assert filled(tmp_path / "j") == ROWS[:1]
