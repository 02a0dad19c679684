"""From the bytes of an image to ranked classes."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..classes.scores import probabilities, ranking
from ..engines.batching.requests import Array, Outputs
from ..errors import InputError
from ..images.decode import upright_rgb
from ..images.limits import check_work
from ..images.soundness import is_sound
from ..images.transform import preprocess
from ..recipes import Transform
from .decoding import PixelBudget
from .models import ServedModel
from .rejections import Rejected

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["OpenedImage", "Prepared", "classified", "decode", "top_classes"]

FORMATS = ("JPEG", "PNG")


class Prepared(NamedTuple):
    """An image as an engine takes it."""

    images: Array  # [1, ...]
    transform: Transform  # that it went through; a reload may bring an engine with another


class OpenedImage(NamedTuple):
    """An image whose size is known and whose pixels are not decoded yet."""

    image: Image
    pixels: int
    data: bytes


async def classified(
    data: bytes, model: ServedModel, threads: Executor, pixels: PixelBudget, max_pixels: int
) -> Prepared:
    """Send a JPEG or PNG through the eval transform of the engine in use, in a thread.

    Raises:
        Rejected, InputError: See :func:`decode`.
    """
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(threads, decode, data, model, pixels, max_pixels)
    if isinstance(found, Prepared):
        return found
    await pixels.wait(found.pixels)
    work = threads.submit(_finish, found, model, pixels, max_pixels)
    work.add_done_callback(lambda done: pixels.give(found.pixels) if done.cancelled() else None)  # it never began
    return await asyncio.wrap_future(work)


def decode(data: bytes, model: ServedModel, pixels: PixelBudget, max_pixels: int) -> Prepared | OpenedImage:
    """Open a JPEG or PNG, and decode it unless its pixels are too many just now.

    Raises:
        Rejected: 413 for more than ``max_pixels``, before they are decoded; 400 for anything that is not a sound image.
        InputError: The model gives no class scores, so classifying would be in vain; or the image asks for more work than
            its pixels.
    """
    from PIL import Image

    model.engine.spec.require_scores()
    check_work(data)
    with _rejecting(max_pixels):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise Rejected(413, f"the image has {width} x {height} pixels; {max_pixels} are the limit.")
    opened = OpenedImage(image, width * height, data)
    return _finish(opened, model, pixels, max_pixels) if pixels.take(opened.pixels) else opened


def _finish(opened: OpenedImage, model: ServedModel, pixels: PixelBudget, max_pixels: int) -> Prepared:
    """Decode, with pixels that were taken for it."""
    try:
        spec = model.engine.spec
        transform = spec.transform or Transform()
        with _rejecting(max_pixels), opened.image as image:
            if not is_sound(opened.data):
                raise Rejected(400, "the image is damaged.")
            return Prepared(preprocess(upright_rgb(image), transform, spec.image_size, spec.input)[None], transform)
    finally:
        pixels.give(opened.pixels)


@contextlib.contextmanager
def _rejecting(max_pixels: int) -> Iterator[None]:
    """Answers for what Pillow raises."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (Rejected, InputError):
        raise
    except UnidentifiedImageError:
        raise Rejected(400, "the body is neither a JPEG nor a PNG image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected(413, f"the image has too many pixels; {max_pixels} are the limit.") from None
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        raise Rejected(400, "the image is damaged.") from None


def top_classes(model: ServedModel, outputs: Outputs, top_k: int) -> list[dict[str, Any]]:
    """Return the most probable classes of the first image, best first; equal ones in class order.

    Raises:
        Rejected: 422 when the model's answer is not finite.
    """
    row = probabilities(outputs)[0]
    if not np.isfinite(row).all():
        raise Rejected(422, "the model's answer to this image is not finite.")
    labels = model.labels
    return [{"class": i, "label": labels[i] if labels else None, "probability": p} for i, p in ranking(row, top_k)]
