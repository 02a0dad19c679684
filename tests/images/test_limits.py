"""Images that ask for more work than their pixels, and those that only look like it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.errors import InputError
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.limits import check_work

from ..docs.pages import ROOT
from .bombs import BOMBS, jpeg, png, segment


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, name: str) -> None:
    data, reason = BOMBS[name]
    with pytest.raises(InputError, match=f"^refused: .*{reason}"):
        check_work(data)
    (tmp_path / "x.img").write_bytes(data)
    with pytest.raises(InputError, match=rf"x\.img: refused: .*{reason}.* Save the image again"):
        load_image(tmp_path / "x.img")


def noise(side: int = 200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    noise().save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG"),
        saved("JPEG", progressive=True, quality=95),
        saved("JPEG", restart_marker_blocks=1),
        saved(
            "JPEG", icc_profile=bytes(range(256)) * 12_000, exif=b"Exif\0\0" + bytes(60_000), comment=b"\xff" * 60_000
        ),
        saved("JPEG", qtables=[[255] * 64] * 2),
        saved("PNG", compress_level=0),
        saved("PNG", icc_profile=bytes(500_000)),
        jpeg(512, 80),
        jpeg(64, 1, before=b"\xff" * 1000),
        jpeg(64, 1, before=segment(0xE2, b"FPXR\0" + bytes(60_000)) * 200),
    ],
    ids=[
        "baseline",
        "progressive",
        "restarts",
        "metadata",
        "tables of 255",
        "png",
        "png profile",
        "scans",
        "fill",
        "segments",
    ],
)
def test_what_programs_write_passes(data: bytes) -> None:
    check_work(data)
    assert load_image(io.BytesIO(data)).mode == "RGB"


@pytest.mark.parametrize("cut", range(2, 400, 7))
def test_a_file_that_ends_anywhere_is_left_to_the_decoder(cut: int) -> None:
    check_work(saved("JPEG")[:cut])
    check_work(saved("PNG")[:cut])


MEASURE = """
import resource, sys
from evovit_deploy.images.decode import load_image
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_image(sys.argv[1]); before = peak(); load_image(sys.argv[2]); print((peak() - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB")
@pytest.mark.parametrize("kind", ["grey", "rgb", "palette", "cmyk"])
def test_memory_is_at_most_12_bytes_a_pixel(tmp_path: Path, kind: str) -> None:
    """As docs/production.md says; the kinds that took most of each format."""
    side = 3000
    large, small = tmp_path / "large", tmp_path / "small"
    if kind in ("grey", "rgb"):
        for path, length in ((large, side), (small, 8)):
            path.write_bytes(png(length, depth=16 if kind == "grey" else 8, color=0 if kind == "grey" else 2))
    else:
        for path, length in ((large, side), (small, 8)):
            if kind == "palette":
                Image.new("P", (length, length)).save(path, "PNG", transparency=bytes(256))
            else:
                Image.new("CMYK", (length, length)).save(path, "JPEG", progressive=True)
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(large)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) <= 12 * side * side + (8 << 20)
