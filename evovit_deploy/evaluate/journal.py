"""The journal of an evaluation: predictions on disk as they are made, a line for every image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage.journal import Journal

__all__ = ["Row", "open_journal"]


@dataclass(frozen=True)
class Row:
    """What came out for one image.

    Attributes:
        predictions: One a model: its most probable (class, probability), best first; empty if the image failed.
        error: Why there is no prediction, else None.
    """

    predictions: tuple[tuple[tuple[int, float], ...], ...] = ()
    error: str | None = None

    def to_line(self, number: int) -> bytes:
        """Return the JSON line of image ``number``."""
        row: dict[str, Any] = {"i": number}
        if self.error is None:
            row["p"] = self.predictions
        else:
            row["e"] = self.error
        return (json.dumps(row, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes, number: int) -> Row | None:
        """Read a line back; None if it is not the complete line of image ``number``."""
        try:
            row = json.loads(line)
            if not line.endswith(b"\n") or row["i"] != number:
                return None
            if "e" in row:
                return cls(error=str(row["e"]))
            return cls(tuple(tuple((int(c), float(p)) for c, p in ranking) for ranking in row["p"]))
        except (ValueError, LookupError, TypeError):
            return None


def open_journal(path: Path, key: str, *, fresh: bool = False) -> Journal[Row]:
    """Open the journal of an evaluation; see :class:`~evovit_deploy.storage.journal.Journal`."""
    work = "evaluating the same model on the same data"
    return Journal(path, key, Row.to_line, Row.from_line, work=work, fresh=fresh)
