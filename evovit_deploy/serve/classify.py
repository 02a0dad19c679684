"""From the bytes of an image to ranked classes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..classify import probabilities
from ..errors import InputError
from ..preprocess import preprocess, upright_rgb
from ..recipes import Transform
from .models import ServedModel
from .rejections import Rejected
from .requests import Array, Outputs

__all__ = ["decode", "ranking"]

FORMATS = ("JPEG", "PNG")


def decode(data: bytes, model: ServedModel, max_pixels: int) -> Array:
    """A JPEG or PNG through the model's eval transform: [1, ...].

    Raises:
        Rejected: 413 for more than ``max_pixels``, before they are decoded; 400 for anything that is not a sound image.
    """
    from PIL import Image, UnidentifiedImageError

    spec = model.engine.spec
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Rejected(413, f"the image has {width} x {height} pixels; {max_pixels} are the limit.")
            return preprocess(upright_rgb(image), spec.transform or Transform(), spec.image_size, spec.input)[None]
    except (Rejected, InputError):
        raise
    except UnidentifiedImageError:
        raise Rejected(400, "the body is neither a JPEG nor a PNG image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected(413, f"the image has too many pixels; {max_pixels} are the limit.") from None
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        raise Rejected(400, "the image is damaged.") from None


def ranking(model: ServedModel, outputs: Outputs, top_k: int) -> list[dict[str, Any]]:
    """The most probable classes of the first image, best first; equal ones in class order.

    Raises:
        Rejected: 422 when the model's answer is not finite.
    """
    row = probabilities(outputs)[0]
    if not np.isfinite(row).all():
        raise Rejected(422, "the model's answer to this image is not finite.")
    best = (-row).argsort(kind="stable")[:top_k].tolist()
    labels = model.labels
    return [{"class": i, "label": labels[i] if labels else None, "probability": float(row[i])} for i in best]
