"""One HTML file with everything in it: no script, style or picture comes from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..storage.ownership import mark
from .drawing import Panel, to_jpeg

__all__ = ["Page", "page_of", "render"]


@dataclass(frozen=True)
class Page:
    """One image of the gallery.

    Attributes:
        name: Path as shown.
        answer: What the model says, in words.
        differs: Whether a reference keeps other patches or says another class.
        panels: (caption, picture as a data URI).
    """

    name: str
    answer: str
    differs: bool
    panels: tuple[tuple[str, str], ...]


def page_of(name: str, answer: str, differs: bool, panels: Sequence[Panel]) -> Page:
    """Make a page, its pictures encoded."""
    return Page(name, answer, differs, encoded(panels))


def encoded(panels: Sequence[Panel]) -> tuple[tuple[str, str], ...]:
    """Return (caption, data URI) of every panel."""
    return tuple(
        (panel.caption, "data:image/jpeg;base64," + base64.b64encode(to_jpeg(panel.pixels)).decode())
        for panel in panels
    )


def render(
    pages: Sequence[Page], summary: dict[str, Any], frequency: Sequence[Panel], facts: str, *, attention: bool
) -> str:
    """Return the gallery as HTML.

    Args:
        pages: One an image.
        summary: ``Summary.to_dict``.
        frequency: Maps of how often each patch is kept.
        facts: A line about model and reference.
        attention: Whether there are panels of class attention, to be explained.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("evovit_deploy.explain", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("gallery.html").render(
        title="What the model keeps",
        generator=mark("explain"),
        pages=pages,
        summary=summary,
        frequency=encoded(frequency),
        facts=facts,
        attention=attention,
    )
