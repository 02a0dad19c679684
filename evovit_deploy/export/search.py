"""Looking for the least set of nodes: by halves, in units that belong together, along what reads what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from .islands import MOVES

if TYPE_CHECKING:
    import onnx

__all__ = ["minimise", "readers_of", "units_of"]


def units_of(known: Sequence[str]) -> list[set[str]]:
    """Nodes by what they belong to: one half of a block, the embedding, what stands after a block."""
    units: dict[str, set[str]] = {}
    for name in known:
        module, *rest = name.split("/")
        if module.startswith("blocks."):
            module += ".attn" if rest and rest[0] in ("norm1", "attn", "class_row", "class_attention") else ".mlp"
        units.setdefault(module, set()).add(name)
    return list(units.values())


def minimise(units: list[set[str]], good: Callable[[set[str]], bool], always: Collection[str] = ()) -> list[set[str]]:
    """Drop as many units as can be dropped while ``good`` holds for the rest and ``always``: halves first, then quarters, down
    to one.
    """
    size = max(1, len(units) // 2)
    while units:
        place = 0
        while place < len(units):
            rest = units[:place] + units[place + size :]
            if good(set(always).union(*rest)):
                units = rest
            else:
                place += size
        if size == 1:
            break
        size //= 2
    return units


def readers_of(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Node -> nodes that compute with its values, through what only moves them."""
    of: dict[str, set[str]] = {}  # value -> nodes it comes from
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        sources = set().union(*(of.get(name, set()) for name in node.input))
        if node.op_type in MOVES:
            origin = sources
        else:
            for source in sources:
                readers.setdefault(source, set()).add(node.name)
            origin = {node.name}
        for name in node.output:
            of[name] = origin
    return readers
