"""Whether the data of an image is whole, where its decoder does not mind: Pillow takes a JPEG whatever libjpeg warns of.

The checksums of a PNG and the lengths of a WebP are looked at by their decoders.
"""

from __future__ import annotations

__all__ = ["is_sound"]

JPEG, END = b"\xff\xd8\xff", b"\xff\xd9"
TAIL = 1 << 16  # bytes in which a JPEG has its end
SMALLEST = 8  # sides are decoded to an eighth, which reads all of the data and costs a fifth of Pillow's time


def is_sound(data: bytes) -> bool:
    """Return whether libjpeg decodes a JPEG without a warning, such as of a code that means nothing.

    Other formats pass, and so does everything where ``simplejpeg`` is not installed, or does not know the kind of JPEG. A JPEG
    that lacks nothing but its end passes too.

    Args:
        data: The whole file.
    """
    if not data.startswith(JPEG):
        return True
    try:
        import simplejpeg
    except ImportError:
        return True
    if END not in data[-TAIL:]:
        data += END

    def decodes(*, strict: bool) -> bool:
        try:
            colours = simplejpeg.decode_jpeg_header(data, strict=strict)[2]
            simplejpeg.decode_jpeg(
                data,
                colorspace="CMYK" if colours in ("CMYK", "YCCK") else "GRAY",
                fastdct=True,
                fastupsample=True,
                min_height=1,
                min_width=1,
                min_factor=SMALLEST,
                strict=strict,
            )
        except (ValueError, LookupError):  # the second of a header with a subsampling that it does not know
            return False
        return True

    return decodes(strict=True) or not decodes(strict=False)
