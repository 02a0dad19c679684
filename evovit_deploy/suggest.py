"""What somebody probably meant who mistyped a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["close_to", "did_you_mean"]

# As alike as this: two letters swapped or left out in a short word, a wrong size in a long name.
CUTOFF = 0.6


def close_to(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Find the known names closest to ``word``, best first; upper and lower case, `-` and `_` are the same here.

    Args:
        word: What was typed.
        known: What there is.
        count: Most names to return.
    """
    names = {_plain(name): name for name in known}
    plain = _plain(word)
    close = difflib.get_close_matches(plain, names, count, CUTOFF)
    # Of equally close ones difflib puts the last in the alphabet first.
    close.sort(key=lambda name: (-difflib.SequenceMatcher(None, name, plain).ratio(), name))
    if not close and len(plain) > 1:  # the size alone, or the start of a long name
        close = [name for name in names if plain in name][:count]
    return [names[name] for name in close]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Phrase :func:`close_to` as the end of a message, with a blank before it; empty if nothing is close."""
    close = [repr(name) for name in close_to(word, known)]
    if not close:
        return ""
    return f" Did you mean {' or '.join([', '.join(close[:-1]), close[-1]] if len(close) > 1 else close)}?"


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_")
