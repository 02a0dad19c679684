"""`explain`: pictures of what a model keeps, a file an image and one gallery, and what the images have in common."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ..classes.labels import ClassNames
from ..engines.registry import kind_of
from ..errors import InputError, OutputError, translate
from ..images.decode import load_image
from ..images.transform import preprocess
from ..storage.files import exact, printable, write_bytes
from ..storage.ownership import check_not_read, check_replaceable, is_page, is_picture, mark, remove_stale
from .drawing import Panel, draw, frequency_panel, overview, panel_size, sheet, shown
from .gallery import Page, page_of, render
from .maps import Explainer, Look
from .summary import Summary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.base import Engine

    Array = NDArray[Any]

__all__ = ["Explanation", "explain"]

BATCH = 16
OVERVIEW = "overview.png"
COLUMNS = 10  # of the overview
PICTURE = re.compile(r"[0-9]{4,}_.+\.png")
PAGE, DRAWN = is_page("explain"), is_picture("explain")


@dataclass(frozen=True)
class Explanation:
    """What was written, and what was found.

    Attributes:
        gallery: The HTML file.
        pictures: PNG file of every image that was drawn.
        overview: PNG file with the first ten side by side.
        summary: Over all images, drawn or not; see :meth:`Summary.to_dict`.
        images: For every image its path, classes and the kept positions of every selection, those in every fused token, and the
            same of the reference.
        failures: (path, reason) of images that could not be read.
    """

    gallery: Path
    pictures: tuple[Path, ...]
    overview: Path
    summary: dict[str, Any]
    images: tuple[dict[str, Any], ...]
    failures: tuple[tuple[Path, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "schema": 1,
            "gallery": exact(self.gallery),
            "overview": exact(self.overview),
            "summary": self.summary,
            "images": list(self.images),
            "failures": [{"path": exact(path), "reason": reason} for path, reason in self.failures],
        }


def explain(
    engine: Engine,
    paths: Sequence[Path],
    folder: Path,
    *,
    reference: Engine | None = None,
    classes: ClassNames | None = None,
    limit: int = 200,
    force: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
    on_failure: Callable[[Path, str], None] = lambda path, reason: None,
) -> Explanation:
    """Draw which patches a model keeps, in PNG files and one gallery.

    Args:
        engine: A model with kept outputs, see :class:`Explainer`.
        paths: Images.
        folder: Where ``index.html`` and the PNG files go; made if missing. Those of an earlier run go.
        reference: A second model with the same selections, such as another precision, to compare the kept sets with.
        classes: Names of the classes.
        limit: Images that are drawn; the summary counts all.
        force: Replace files that evovit did not write; its own are replaced always.
        on_progress: Called with the number of images done.
        on_failure: Called for every image that cannot be read; the others go on.

    Raises:
        InputError: A model without kept outputs, other selections in the reference, or no image that can be read.
        OutputError: ``folder`` cannot be written, or files would be replaced that evovit did not write.
    """
    names = classes or ClassNames([()] * engine.spec.num_classes)
    explainers = [Explainer(model) for model in (engine, reference) if model is not None]
    paths = list(dict.fromkeys(paths))
    named = {path: folder / f"{number:04}_{_safe(path.stem)}.png" for number, path in enumerate(paths, 1)}
    _make(folder)
    earlier = [path for path in folder.iterdir() if PICTURE.fullmatch(path.name)]
    check_not_read([folder / "index.html", folder / OVERVIEW, *named.values(), *earlier], paths)
    check_replaceable(
        {
            folder / "index.html": PAGE,
            folder / OVERVIEW: DRAWN,
            **dict.fromkeys(set(earlier) & set(named.values()), DRAWN),
        },
        force=force,
    )
    failures: list[tuple[Path, str]] = []

    def fail(path: Path, reason: str) -> None:
        failures.append((path, reason))
        on_failure(path, reason)

    summary = Summary()
    pages: list[Page] = []
    pictures: list[Path] = []
    images: list[dict[str, Any]] = []
    columns: list[tuple[str, list[Panel]]] = []
    side = panel_size(engine.spec.image_size)
    with TemporaryDirectory(prefix=".evovit-", dir=folder) as scratch:  # old pictures stay until all new ones are drawn
        for done, path, image, looks in _looks(explainers, paths, fail):
            _check(looks)
            other = looks[1] if len(looks) > 1 else None
            summary.add(*looks)
            images.append(
                {"path": exact(path), **_described(looks[0]), "reference": _described(other) if other else None}
            )
            if len(pages) < limit:
                base = preprocess(image, explainers[0].transform, side, "uint8")
                panels, answer = draw(base, looks[0], other), _answer(looks, names)
                _save(sheet(f"{printable(Path(path.name))}: {answer}", panels), Path(scratch, named[path].name))
                pictures.append(named[path])
                columns += [(answer, panels)][: COLUMNS - len(columns)]
                pages.append(page_of(exact(path), answer, other is not None and _differs(looks[0], other), panels))
            on_progress(done)
        if not images:
            raise InputError(f"none of the {len(paths)} images could be read; the first: {failures[0][1]}")
        _save(overview(columns), Path(scratch, OVERVIEW))
        document = summary.to_dict(explainers[0].grids, reference is not None)
        with translate(OutputError, f"cannot write into {printable(folder)}", OSError):
            for picture in (*pictures, folder / OVERVIEW):
                os.replace(Path(scratch, picture.name), picture)
        _write_gallery(folder / "index.html", engine, reference, pages, document)
        remove_stale(earlier, DRAWN, pictures)
    return Explanation(
        folder / "index.html", tuple(pictures), folder / OVERVIEW, document, tuple(images), tuple(failures)
    )


def _looks(
    explainers: Sequence[Explainer], paths: Sequence[Path], fail: Callable[[Path, str], None]
) -> Iterator[tuple[int, Path, Any, tuple[Look, ...]]]:
    """(images done, path, RGB image, look of every model) of every readable image."""
    for start in range(0, len(paths), BATCH):
        opened = []
        for path in paths[start : start + BATCH]:
            try:
                opened.append((path, load_image(path)))
            except InputError as error:
                fail(path, str(error).removeprefix(f"{path}: "))
        if not opened:
            continue
        looks = []
        for explainer in explainers:
            spec = explainer.engine.spec
            batch = [preprocess(image, explainer.transform, spec.image_size, spec.input) for _, image in opened]
            looks.append(explainer(np.stack(batch)))
        done = min(start + BATCH, len(paths)) - len(opened)
        for number, ((path, image), *of_models) in enumerate(zip(opened, *looks), 1):
            yield done + number, path, image, tuple(of_models)


def _check(looks: Sequence[Look]) -> None:
    # Where tokens fuse, a fused one may be kept in place of a patch, and one more patch is in it.
    shapes = [[(part.output, part.grid, 0 if part.fused else part.count) for part in look.selections] for look in looks]
    if any(shape != shapes[0] for shape in shapes):
        words = [", ".join(f"{count} of {grid * grid}" for _, grid, count in shape) for shape in shapes]
        raise InputError(
            f"the models keep different numbers of patches ({words[0]} against {words[1]}), so their sets cannot be "
            "compared. Give two files of one recipe, such as two precisions."
        )


def _differs(look: Look, reference: Look) -> bool:
    same_class = [c for c, _ in (look.ranking or [])[:1]] == [c for c, _ in (reference.ranking or [])[:1]]
    known = look.ranking is not None and reference.ranking is not None
    return (known and not same_class) or any(a.alike(b) < 1 for a, b in zip(look.selections, reference.selections))


def _described(look: Look) -> dict[str, Any]:
    return {
        "classes": [{"class": number, "probability": share} for number, share in look.ranking or ()],
        look.selections[0].output: [part.listed for part in look.selections],
        "fused": [[group.tolist() for group in part.fused] for part in look.selections],
    }


def _answer(looks: Sequence[Look], names: ClassNames) -> str:
    """What each model says the image is."""
    words = []
    for look in looks:
        if not look.ranking:
            words.append("no class scores" if look.ranking is None else "output not finite")
            continue
        number, share = look.ranking[0]
        words.append(f"{names.label(number) or f'class {number}'} {share:.1%}")
    return words[0] if len(words) == 1 else f"{words[0]}; reference: {words[1]}"


def _safe(stem: str) -> str:
    """A part of a file name that every system and browser takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:60].strip("._") or "image"


def _save(picture: Any, path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    facts = PngInfo()
    facts.add_text("Software", mark("explain"))
    with translate(OutputError, f"cannot write {path.name}", OSError):
        picture.save(path, "PNG", pnginfo=facts)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {printable(folder)}: {error.strerror or error}.") from error


def _write_gallery(
    path: Path, engine: Engine, reference: Engine | None, pages: Sequence[Page], document: dict[str, Any]
) -> None:
    panels = [
        frequency_panel(np.array(part["frequency"]), part["grid"], part["name"])
        for number, part in enumerate(document["selections"])
        if number in shown(len(document["selections"]), document["selections"][0]["name"])
    ]
    attention = kind_of(engine.backend) == "checkpoint" and "kept" in document["selections"][0]
    facts = f"{engine.spec.name}, {engine.spec.precision}, {engine.backend}"
    if reference is not None:
        facts += f"; reference: {reference.spec.name}, {reference.spec.precision}, {reference.backend}"
    if document["images"] > len(pages):
        facts += f". The first {len(pages)} of {document['images']} images are shown."
    write_bytes(path, render(pages, document, panels, facts, attention=attention).encode())
