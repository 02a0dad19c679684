"""From the bytes of an image to ranked classes."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

from ..classify import probabilities
from ..errors import InputError
from ..image_limits import check_work
from ..preprocess import preprocess, upright_rgb
from ..recipes import Transform
from .decoding import Pixels
from .models import ServedModel
from .rejections import Rejected
from .requests import Array, Outputs

__all__ = ["Prepared", "decode", "ranking"]

FORMATS = ("JPEG", "PNG")
_PIXELS = Pixels()  # of this process, as its memory is


class Prepared(NamedTuple):
    """An image as an engine takes it."""

    images: Array  # [1, ...]
    transform: Transform  # that it went through; a reload may bring an engine with another


def decode(data: bytes, model: ServedModel, max_pixels: int) -> Prepared:
    """Send a JPEG or PNG through the eval transform of the engine in use.

    Raises:
        InputError: The model gives no class scores, so classifying would be in vain.
        Rejected: 413 for more than ``max_pixels``, before they are decoded; 400 for anything that is not a sound image.
    """
    from PIL import Image, UnidentifiedImageError

    spec = model.engine.spec
    spec.require_scores()
    transform = spec.transform or Transform()
    check_work(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Rejected(413, f"the image has {width} x {height} pixels; {max_pixels} are the limit.")
            with _PIXELS.taken(width * height, max_pixels):
                return Prepared(preprocess(upright_rgb(image), transform, spec.image_size, spec.input)[None], transform)
    except (Rejected, InputError):
        raise
    except UnidentifiedImageError:
        raise Rejected(400, "the body is neither a JPEG nor a PNG image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected(413, f"the image has too many pixels; {max_pixels} are the limit.") from None
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        raise Rejected(400, "the image is damaged.") from None


def ranking(model: ServedModel, outputs: Outputs, top_k: int) -> list[dict[str, Any]]:
    """Return the most probable classes of the first image, best first; equal ones in class order.

    Raises:
        Rejected: 422 when the model's answer is not finite.
    """
    row = probabilities(outputs)[0]
    if not np.isfinite(row).all():
        raise Rejected(422, "the model's answer to this image is not finite.")
    best = (-row).argsort(kind="stable")[:top_k].tolist()
    labels = model.labels
    return [{"class": i, "label": labels[i] if labels else None, "probability": float(row[i])} for i in best]
