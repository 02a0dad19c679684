"""`evovit explain` as a call: files in, a gallery out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ..classes.labels import ClassNames
from ..classes.output_names import PLACES, output_of
from ..engines.opening import OpenOptions, open_models
from ..engines.registry import kind_of
from ..engines.transform import settle_transforms
from ..errors import InputError
from ..images.folder import find_images
from .runner import Explanation, explain

__all__ = ["ExplainOptions", "explain_files"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExplainOptions:
    """How pictures of what a model keeps are made.

    Attributes:
        models: How the models are opened.
        folder: For ``index.html`` and the PNG files; made if missing.
        against: A second model with the same selections, to compare the kept sets with.
        labels: File with the class names; None is none.
        limit: Images that are drawn; the summary counts all.
        force: Replace files that evovit did not write.
    """

    models: OpenOptions = field(default_factory=OpenOptions)
    folder: Path = Path("explain")
    against: Path | None = None
    labels: Path | None = None
    limit: int = 200
    force: bool = False

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InputError(f"limit is {self.limit}; give a number of images from 1.")


def explain_files(
    model: Path,
    images: Sequence[Path],
    options: ExplainOptions | None = None,
    *,
    note: Say = lambda text: None,
    warn: Say = lambda text: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Path, str], None] = lambda path, reason: None,
) -> Explanation:
    """Open a model, and perhaps a second, and draw which patches it keeps of every image.

    Args:
        model: Checkpoint; or an ONNX file or engine with the outputs ``kept``.
        images: Image files, and folders that are searched for images.
        options: See :class:`ExplainOptions`.
        note: Called with what was assumed.
        warn: Called with what was left out.
        on_progress: Called with the number of images done, and of all.
        on_failure: Called for every image that cannot be read; the others go on.

    Raises:
        EvoVitError: See :func:`.open_models` and :func:`.explain`.
    """
    options = options or ExplainOptions()
    with ExitStack() as stack:
        paths = [model] if options.against is None else [model, options.against]
        engines = open_models(stack, paths, options.models, ("logits", *PLACES), note=note)
        settle_transforms(engines, options.models, note)
        selects = any(output_of(name) == "kept" for name in engines[0].spec.outputs)
        if selects and kind_of(engines[0].backend) != "checkpoint":
            note("only a checkpoint shows the class attention; this file only says which patches it keeps")
        classes = ClassNames.read(options.labels, engines[0].spec.num_classes)
        left_out: list[str] = []
        found = find_images(images, left_out)
        for text in left_out:
            warn(text)
        return explain(
            engines[0],
            found,
            options.folder,
            reference=engines[1] if len(engines) > 1 else None,
            classes=classes,
            limit=options.limit,
            force=options.force,
            on_progress=lambda done: on_progress(done, len(found)),
            on_failure=on_failure,
        )
