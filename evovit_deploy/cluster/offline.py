"""Offline scoring as a stage of Ray Data: any dataset with a column of images gets columns of classes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes.scores import NOT_FINITE, probabilities, ranking
from ..engines.base import Engine
from ..errors import InputError
from ..images.decode import load_image
from ..images.transform import preprocess
from ..recipes import Transform
from .application import require

__all__ = ["Scorer", "score"]

Array = NDArray[Any]


class Scorer:
    """Classifies a batch of rows; for ``Dataset.map_batches``, which makes one in each of its actors.

    Args:
        model: ``.onnx`` file, checkpoint or TensorRT engine, at this path on every node.
        column: Column with the images: file names (str), encoded images (bytes), or pixels ([H, W, 3] uint8 arrays).
        top_k: Classes an image.
        provider, threads: As for ``Engine.open``.

    Raises:
        EvoVitError: The model cannot be opened, or gives no class scores.
    """

    def __init__(
        self, model: str, *, column: str = "path", top_k: int = 5, provider: str = "auto", threads: int | None = None
    ) -> None:
        self.engine = Engine.open(model, provider=provider, threads=threads)
        self.engine.spec.require_scores()
        self.column, self.top_k = column, min(top_k, self.engine.spec.num_classes)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score rows.

        Args:
            batch: Column name -> n values, as ``batch_format="numpy"`` gives them.

        Returns:
            The same columns, those of pixels and encoded images left out, with ``classes`` [n, top_k] int64 and ``probabilities``
            [n, top_k] float64, best first, and ``error``: empty, or why the row has class -1 and probability NaN.

        Raises:
            InputError: There is no such column.
        """
        if self.column not in batch:
            raise InputError(f"the dataset has no column {self.column!r}; it has {', '.join(batch)}.")
        values = batch[self.column]
        errors = [""] * len(values)
        images, good = [], []
        for number, value in enumerate(values):
            try:
                images.append(self._read(value))
                good.append(number)
            except InputError as error:
                errors[number] = str(error)
        classes = np.full((len(values), self.top_k), -1, np.int64)
        found = np.full((len(values), self.top_k), np.nan)
        rows = probabilities(self.engine(np.stack(images))) if images else ()
        for number, row in zip(good, rows):
            if not np.isfinite(row).all():
                errors[number] = NOT_FINITE
                continue
            best = ranking(row, self.top_k)
            classes[number], found[number] = [i for i, _ in best], [p for _, p in best]
        kept = {k: v for k, v in batch.items() if k != self.column or isinstance(values[0], (str, np.str_))}
        return {**kept, "classes": classes, "probabilities": found, "error": np.array(errors, object)}

    def _read(self, value: Any) -> Array:
        from PIL import Image

        spec = self.engine.spec
        if isinstance(value, (str, Path)):
            image = load_image(value)
        elif isinstance(value, bytes):
            try:
                image = load_image(io.BytesIO(value))  # type: ignore[arg-type]
            except InputError:
                raise
            except Exception as error:  # what it says of a file cannot be said of bytes
                raise InputError("not an image.") from error
        else:
            pixels = np.asarray(value)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise InputError(f"pixels are {list(pixels.shape)} {pixels.dtype}; give [H, W, 3] uint8.")
            image = Image.fromarray(pixels)
        return preprocess(image, spec.transform or Transform(), spec.image_size, spec.input)


def score(
    dataset: Any, model: str | Path, *, column: str = "path", top_k: int = 5, batch_size: int = 32, replicas: int = 1,
    num_cpus: float = 1.0, num_gpus: float = 0.0, provider: str = "auto", threads: int | None = None,
) -> Any:  # fmt: skip
    """Return a dataset with the classes of its images; it is computed when it is read or written, as Ray Data does everything.

    Args:
        dataset: ``ray.data.Dataset``, e.g. of ``read_images``, ``read_binary_files``, or ``from_items([{"path": ...}])``.
        model, column, top_k, provider: As for :class:`Scorer`.
        batch_size: Rows in one run of the model, as far as blocks allow.
        replicas: Copies of the model.
        num_cpus, num_gpus: Of each.
        threads: CPU threads within an operator; None is ``num_cpus``.

    Raises:
        EngineError: Ray is not installed.
    """
    require()
    from ray.data import ActorPoolStrategy

    return dataset.map_batches(
        Scorer,
        fn_constructor_args=(str(Path(model).absolute()),),
        fn_constructor_kwargs={
            "column": column, "top_k": top_k, "provider": provider, "threads": threads or max(1, int(num_cpus)),
        },
        batch_size=batch_size,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=replicas),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )  # fmt: skip
