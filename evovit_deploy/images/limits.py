"""What an image file may ask of its decoder: a few hundred bytes can otherwise take minutes or gigabytes.

The pixels are limited where the size is known. What is counted here is what a file can ask for beyond them: scans of a
progressive JPEG, each of which visits every block of the image; segments and chunks, which Pillow reads one by one in
Python; and bytes between them that mean nothing, which it reads singly. No encoder comes near these limits.
"""

from __future__ import annotations

import re
import struct

from ..errors import InputError

__all__ = ["check_work", "is_checked"]

MAX_SCANS = 100  # encoders write about 10 for a progressive image
MAX_WORK = 4_000_000_000  # scans times samples of the image: 26 scans of 50 megapixels in three components
ARITHMETIC = 16  # how much longer a scan takes with arithmetic coding, which goes on where the data has ended
MAX_SEGMENTS = 1000  # before and between scans; an ICC profile may take 255
MAX_HEADER = 16 << 20  # bytes before the first scan, which Pillow joins piece by piece
MAX_WASTE = 1 << 16  # fill bytes, and bytes between segments
MAX_CHUNKS = 1000  # of a PNG, beside those of pixels
MIN_IDAT = 256  # bytes in a chunk of pixels, on average, beyond the first 1,000 of them

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOS, _EOI = 0xDA, 0xD9
_ALONE = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_work(data: bytes) -> None:
    """Refuse a JPEG or PNG that asks for far more work than its pixels; other data passes.

    Damage is not looked for: that is left to the decoder, which may end earlier than this walk.

    Args:
        data: The whole file.

    Raises:
        InputError: One of the limits of this module is exceeded. The message says which, without naming the file.
    """
    if data.startswith(_JPEG):
        _check_jpeg(data)
    elif data.startswith(_PNG):
        _check_png(data)


def is_checked(head: bytes) -> bool:
    """Whether a file that begins so (8 bytes) is one that :func:`check_work` looks at."""
    return head.startswith((_JPEG, _PNG))


def _check_jpeg(data: bytes) -> None:
    place, waste, segments, scans, work = 2, 0, 0, 0, 0
    in_scan = False
    while (found := (_END_OF_SCAN if in_scan else _MARKER).search(data, place)) is not None:
        waste += _meaningless(data, place, found.start(), in_scan)
        kind, place = data[found.start() + 1], found.end()
        in_scan = kind == _SOS
        segments, scans = segments + 1, scans + in_scan
        _limit(waste, MAX_WASTE, "fill bytes")
        if kind == _EOI and scans:
            break
        if kind in _FRAMES:
            work = max(work, _samples(data[place : place + 8]) * (ARITHMETIC if kind > 0xC8 else 1))
        if kind not in _ALONE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
        _limit(scans, MAX_SCANS, "scans")
        _limit(scans * work, MAX_WORK, "scans times pixels and components")
        _limit(segments, MAX_SEGMENTS, "segments")
        if not scans:
            _limit(place, MAX_HEADER, "bytes before the image")
    else:
        _limit(waste + _meaningless(data, place, len(data), in_scan), MAX_WASTE, "fill bytes")


def _meaningless(data: bytes, start: int, end: int, in_scan: bool) -> int:
    """Bytes between two markers that are not data."""
    return 2 * data.count(b"\xff\xff", start, end + 1) if in_scan else max(0, end - start)


def _samples(frame: bytes) -> int:
    if len(frame) < 8:
        return 0
    height, width, components = struct.unpack(">xxxHHB", frame)
    return int(height * width * components)


def _check_png(data: bytes) -> None:
    place, chunks, pixels = 8, 0, 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if kind == b"IDAT":
            pixels += 1
        else:
            chunks += 1
        _limit(chunks, MAX_CHUNKS, "chunks beside the pixels")
        _limit(pixels, MAX_CHUNKS + len(data) // MIN_IDAT, "chunks of pixels")


def _limit(count: int, most: int, what: str) -> None:
    if count > most:
        raise InputError(f"refused: it has more than {most:,} {what}, which no encoder writes. Save the image again.")
