"""Images from disk to what a model takes: the eval transform of DESIGN, in a thread pool with bounded read-ahead.

Sizes and rounding are those of ``torchvision.transforms``: ``Resize(int(ratio * S))``, ``CenterCrop(S)``, ``ToTensor()``,
``Normalize(mean, std)`` on PIL images, so accuracies measured in training carry over bit by bit. One thing differs on
purpose: the EXIF orientation is applied, since a photograph from a phone is otherwise classified lying on its side.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..recipes import Transform
from .folder import SUFFIXES, advice, find_images, formats
from .limits import check_work, is_checked

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..engines.base import ModelSpec

__all__ = [
    "SUFFIXES",
    "Failure",
    "batches",
    "find_images",
    "load_image",
    "normalise",
    "preprocess",
    "resize_size",
    "upright_rgb",
]

Array = NDArray[Any]

# 16-bit greyscale comes as 32-bit pixels out of these.
_DEEP = ("PNG", "PPM")
# Beyond this aspect ratio the resized image would be mostly thrown away by the crop, and could fill the memory.
_EXTREME_ASPECT = 32


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    path: Path
    reason: str


def resize_size(transform: Transform, size: int) -> int:
    """Return the length in pixels that the shorter side is resized to: ``int(resize_ratio * size)``, as the authors round."""
    # A ratio written with 16 digits may give 255.99999999999997 where 256 is meant.
    return int(transform.resize_ratio * size + 1e-6)


def load_image(path: str | Path | BinaryIO) -> Image:
    """Read one image as 8-bit RGB, upright.

    Alpha is dropped, as ``convert("RGB")`` of torchvision's ImageFolder does; nothing is composited. Greyscale, palette
    and CMYK images are converted; 16-bit greyscale keeps its high byte (Pillow alone would clip it to white); of an
    animation or a multi-page file the first frame is taken.

    Args:
        path: A file, or an open one that can seek.

    Raises:
        InputError: Missing, unreadable, truncated, not a raster image, larger than Pillow's limit against decompression
            bombs, or beyond the limits of :mod:`.image_limits`. The message names the file.
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


def preprocess(image: Image, transform: Transform, size: int, image_input: str = "float32") -> Array:
    """Apply the eval transform: resize the shorter side, crop the centre, normalise.

    Args:
        image: RGB.
        transform: From ``ModelSpec.transform`` or a recipe.
        size: S, pixels.
        image_input: ``float32`` or ``uint8``, from ``ModelSpec.input``.

    Returns:
        [3, S, S] float32 normalised, or [S, S, 3] uint8.
    """
    pixels = np.asarray(_crop(image, transform, size))
    return pixels.copy() if image_input == "uint8" else normalise(pixels, transform)


def _crop(image: Image, transform: Transform, size: int) -> Image:
    from PIL import Image as images

    resample = images.Resampling[transform.interpolation.upper()]
    width, height = image.size
    short, short_to = min(width, height), resize_size(transform, size)
    new_width = short_to if width == short else short_to * width // height
    new_height = short_to if height == short else short_to * height // width
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    if max(width, height) > _EXTREME_ASPECT * short:
        # Only the part under the crop: the same filter, up to the order and the rounding of its two passes.
        x, y = width / new_width, height / new_height
        return image.resize((size, size), resample, box=(left * x, top * y, (left + size) * x, (top + size) * y))
    if (width, height) != (new_width, new_height):
        image = image.resize((new_width, new_height), resample)
    return image.crop((left, top, left + size, top + size))


def normalise(pixels: Array, transform: Transform) -> Array:
    """[..., S, S, 3] uint8 -> [..., 3, S, S] float32: divide by 255, subtract the mean, divide by std."""
    mean, std = np.array(transform.mean, np.float32), np.array(transform.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(values, -1, -3))


def batches(
    paths: Sequence[str | Path],
    spec: ModelSpec,
    size: int = 32,
    workers: int | None = None,
    failures: list[Failure] | None = None,
) -> Iterator[tuple[list[Path], Array]]:
    """Decode and transform images in threads, in order, a batch at a time.

    At most ``size + 2 * workers`` images are in memory beside the batch that was handed out, however many there are.

    Args:
        paths: Image files.
        spec: Of the engine: image size, input type and transform; the ImageNet transform where it has none.
        size: Images per batch; the last one may be smaller.
        workers: Threads; the CPU count, at most 8, when None.
        failures: Images that cannot be read are appended here and left out of the batches; the rest goes on. Without
            it the first one raises.

    Yields:
        (paths, images): images [b, 3, S, S] float32 or [b, S, S, 3] uint8 with 1 <= b <= ``size``, one a path.

    Raises:
        InputError: An unreadable image, if ``failures`` is None; or a ``size`` or ``workers`` below 1.
    """
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    if size < 1 or workers < 1:
        raise InputError(f"batch size {size} and workers {workers} must be at least 1.")
    return _batches([Path(path) for path in paths], spec, size, workers, failures)


def _batches(
    paths: list[Path], spec: ModelSpec, size: int, workers: int, failures: list[Failure] | None
) -> Iterator[tuple[list[Path], Array]]:
    transform = spec.transform or Transform()

    def read(path: Path) -> Array:
        return preprocess(load_image(path), transform, spec.image_size, spec.input)

    rest = iter(paths)
    pending: deque[tuple[Path, Future[Array]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="evovit-decode")
    try:
        names: list[Path] = []
        images: list[Array] = []
        while True:
            while len(pending) + len(images) < size + 2 * workers and (path := next(rest, None)) is not None:
                pending.append((path, pool.submit(read, path)))
            if not pending:
                break
            path, future = pending.popleft()
            try:
                image = future.result()
            except InputError as error:
                if failures is None:
                    raise
                failures.append(Failure(path, str(error).removeprefix(f"{path}: ")))
                continue
            names.append(path)
            images.append(image)
            if len(images) == size:
                ready, names, stack, images = names, [], np.stack(images), []
                yield ready, stack
        if images:
            yield names, np.stack(images)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
