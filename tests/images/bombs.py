"""Images of a few bytes, or of empty ones, that ask far more of a decoder than their pixels do."""

from __future__ import annotations

import struct
import zlib


def segment(marker: int, payload: bytes) -> bytes:
    """A JPEG segment."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg(side: int, scans: int, *, before: bytes = b"", after: bytes = b"", frame: int = 0xC2) -> bytes:
    """A progressive JPEG of one component whose further scans hold no data, and visit every block all the same."""
    parts = [
        b"\xff\xd8",
        before,
        segment(0xDB, b"\0" + bytes([1] * 64)),
        segment(frame, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"),
    ]
    if frame < 0xC8:
        parts.append(segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00"))
        parts.append(segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0"))
    parts.append(segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + b"\0")
    parts.append(segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") * scans)
    return b"".join([*parts, after, b"\xff\xd9"])


def chunk(kind: bytes, payload: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(side: int, *, depth: int = 8, color: int = 2, before: bytes = b"", after: bytes = b"") -> bytes:
    """A black PNG; ``color`` 0 is grey, 2 is RGB."""
    row = bytes(1 + side * depth // 8 * (3 if color == 2 else 1))
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


# What is wrong with each, in the words of the error.
BOMBS = {
    "scans of 49 megapixels": (jpeg(7000, 1000), "scans"),
    "many scans of a small image": (jpeg(64, 20_000), "more than 100 scans"),
    "scans with arithmetic coding": (jpeg(7000, 10, frame=0xCA), "scans times pixels"),
    "fill bytes before the image": (jpeg(64, 1, before=b"\xff" * 70_000), "fill bytes"),
    "fill bytes after the image": (jpeg(64, 1, after=b"\xff" * 140_000), "fill bytes"),
    "junk between segments": (jpeg(64, 1, before=b"\xff\x01" + b"\0" * 70_000), "fill bytes"),
    "junk to the end": (jpeg(64, 0)[:20] + bytes(70_000), "fill bytes"),
    "EXIF segments": (jpeg(64, 1, before=segment(0xE1, b"Exif\0\0MM") * 2000), "more than 1,000 segments"),
    "large segments": (jpeg(64, 1, before=segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300), "bytes before the image"),
    "tables between scans": (
        jpeg(64, 1, after=segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00") * 2000),
        "segments",
    ),
    "chunks": (png(8, before=chunk(b"tIME", b"") * 2000), "chunks beside the pixels"),
    "chunks behind the pixels": (png(8, after=chunk(b"tEXt", b"a\0b") * 2000), "chunks beside the pixels"),
    "empty chunks of pixels": (png(8, after=chunk(b"IDAT", b"") * 2000), "chunks of pixels"),
}
