from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evovit_deploy.serve.bodies import compress, unpack
from evovit_deploy.serve.rejections import Rejected


def decompress(data: bytes, coding: str, limit: int) -> bytes:
    return b"".join(unpack(data, coding, limit))


@given(st.binary(max_size=3000), st.sampled_from(("gzip", "deflate")))
def test_round_trip(data: bytes, coding: str) -> None:
    packed, used = compress(data + bytes(1024), coding)
    assert used == coding
    assert decompress(packed, coding, 10_000) == data + bytes(1024)


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(Rejected) as caught:
        decompress(gzip.compress(bytes(50 << 20)), "gzip", 1 << 20)
    assert caught.value.status == 413


def test_a_long_body_comes_in_bounded_parts() -> None:
    data = random.Random(0).randbytes(3 << 20) + bytes(3 << 20)
    parts = list(unpack(gzip.compress(data), "gzip", len(data)))
    assert b"".join(parts) == data
    assert max(map(len, parts)) <= 1 << 20


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", gzip.compress(b"abc", mtime=0)[:-1], gzip.compress(b"abc", mtime=0) + b"x", zlib.compress(b"abc")],
)
def test_damage(damage: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        decompress(damage, "gzip", 100)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("br, deflate", "deflate"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip; q=0, deflate", "deflate"),
        ("identity", None),
    ],
)
def test_what_the_client_accepts(accepted: str, coding: str | None) -> None:
    assert compress(bytes(5000), accepted)[1] == coding


def test_small_answers_are_left_alone() -> None:
    assert compress(b"abc", "gzip") == (b"abc", None)
