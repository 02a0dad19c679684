"""From an image file to upright RGB pixels, whatever it holds and whatever is wrong with it.

One thing differs from what torchvision's ImageFolder reads, on purpose: the EXIF orientation is applied, since a
photograph from a phone is otherwise classified lying on its side.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import InputError
from .folder import advice, formats
from .limits import check_work, is_checked

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["load_image", "upright_rgb"]

# 16-bit greyscale comes as 32-bit pixels out of these.
_DEEP = ("PNG", "PPM")


def load_image(path: str | Path | BinaryIO) -> Image:
    """Read one image as 8-bit RGB, upright.

    Alpha is dropped, as ``convert("RGB")`` of torchvision's ImageFolder does; nothing is composited. Greyscale, palette
    and CMYK images are converted; 16-bit greyscale keeps its high byte (Pillow alone would clip it to white); of an
    animation or a multi-page file the first frame is taken.

    Args:
        path: A file, or an open one that can seek.

    Raises:
        InputError: Missing, unreadable, truncated, not a raster image, larger than Pillow's limit against decompression
            bombs, or beyond the limits of :mod:`.limits`. The message names the file.
    """
    from PIL import Image, UnidentifiedImageError

    where = path if isinstance(path, (str, os.PathLike)) else "the image"

    try:
        with _opened(path) as stream, Image.open(stream, formats=formats()) as image:
            return upright_rgb(image)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{where}: refused, too many pixels ({error}). Scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except UnidentifiedImageError as error:
        what, fix = f"not an image that Pillow reads as one of {', '.join(formats())}", ""
        if isinstance(path, (str, os.PathLike)):
            what = what if os.path.getsize(path) else "the file is empty"
            fix = advice([os.path.splitext(path)[1]])
        raise InputError(f"{where}: {what}.{fix and f' {fix}'}") from error
    # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, ValueError, ...
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise InputError(f"{where}: cannot be read as an image: {reason}.") from error


@contextlib.contextmanager
def _opened(path: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """The file, once it is known to ask for no more work than its pixels."""
    with open(path, "rb") if isinstance(path, (str, os.PathLike)) else contextlib.nullcontext(path) as stream:
        head = stream.read(8)
        stream.seek(0)
        if is_checked(head):
            data = stream.read()
            check_work(data)
            yield io.BytesIO(data)
        else:
            yield stream


def upright_rgb(image: Image) -> Image:
    """Decode an opened image into 8-bit RGB, upright; see :func:`load_image`.

    Raises:
        InputError: 32-bit pixels.
        Exception: Whatever Pillow's decoders raise on damaged data.
    """
    from PIL import ImageOps

    if image.mode == "F" or (image.mode == "I" and image.format not in _DEEP):
        raise InputError(
            f"pixels are 32-bit ({image.mode}) and do not say which value is white. Convert it to 8 or 16 bits first."
        )
    _correct_ycbcr(image)
    image.load()
    with contextlib.suppress(Exception):  # a damaged EXIF block does not make the pixels worse
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def _correct_ycbcr(image: Any) -> None:
    """Pillow before 13 takes three bytes of an uncompressed YCbCr TIFF for four, and calls the file truncated."""
    import PIL

    photometric, samples, subsampling, ycbcr = 262, 277, 530, 6
    if int(PIL.__version__.partition(".")[0]) >= 13 or image.format != "TIFF" or not image.tile:
        return
    tags = image.tag_v2
    whole = tags.get(photometric) == ycbcr and tags.get(samples) == 3 and tags.get(subsampling) == (1, 1)
    if whole and all(codec == "raw" and arguments[0] == "RGBX" for codec, _, _, arguments in image.tile):
        image._mode = "YCbCr"
        # A plain tuple in the oldest, a named one later; both are read by position.
        image.tile = [(codec, box, start, ("YCbCr", *rest[1:])) for codec, box, start, rest in image.tile]


def _to_rgb(image: Image) -> Image:
    from PIL import Image as images

    if image.mode == "I" or image.mode.startswith("I;16"):
        high = np.asarray(image) >> 8  # no wider than it was: a large image would fill the memory
        return images.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same colours and a warning
    return image if image.mode == "RGB" else image.convert("RGB")
