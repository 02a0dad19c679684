"""Spares the ONNX exporter what leaves no trace in the graph: rules that cannot apply, operations that do nothing, where a line
of Python called them, reading its own library again. Of the CPU time of twelve blocks that is a quarter in a process's first
export and over a third in the next.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["applicable_rules_only", "few_collections", "few_operations", "library_read_once", "spared"]

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
def _replaced(library: Any, name: str, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Let an attribute be what ``replace`` makes of it; a library that has no such attribute runs as it is."""
    if not hasattr(library, name):
        yield
        return
    before = getattr(library, name)
    setattr(library, name, replace(before))
    try:
        yield
    finally:
        setattr(library, name, before)


@contextlib.contextmanager
def applicable_rules_only() -> Iterator[None]:
    """Let the exporter's optimiser try each rule only where it can match; the graph that comes out is the same."""
    from onnxscript import rewriter

    with _replaced(rewriter, "_DEFAULT_REWRITE_RULES", lambda rules: tuple(map(_narrowed, rules))):
        yield


class FewOperations(TorchFunctionMode):
    """Leaves out what changes nothing: a cast to the type that a tensor has, and the ``:`` of ``x[:, a:b]``.

    torch.export records each as an operation, runs it on stand-ins for tensors several times, and drops it in the end.
    """

    CASTS = {torch.Tensor.float: torch.float32, torch.Tensor.long: torch.int64}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs:
            return func(*args, **kwargs)
        if func in self.CASTS or (func is torch.Tensor.to and len(args) == 2):
            if args[0].dtype is self.CASTS.get(func, args[-1]):
                return args[0]
        elif func is torch.Tensor.__getitem__ and _is_one_range(args[1]):
            part = args[1][1]
            return torch.ops.aten.slice.Tensor(args[0], 1, part.start, part.stop)
        return func(*args)


def _is_one_range(index: Any) -> bool:
    """Whether an index is a range of the second axis, ``[:, a:b]``."""
    if type(index) is not tuple or len(index) != 2 or index[0] != slice(None) or type(index[1]) is not slice:
        return False
    return index[1].step is None and all(part is None or type(part) is int for part in (index[1].start, index[1].stop))


@contextlib.contextmanager
def few_operations() -> Iterator[None]:
    """Let torch.export see no operation that changes nothing, nor record the lines of Python that :func:`.name_nodes` removes."""
    from torch.fx import config

    with _replaced(config, "do_not_emit_stack_traces", lambda _: True), FewOperations():
        yield


@contextlib.contextmanager
def library_read_once() -> Iterator[None]:
    """Let exports after the first in a process use what the first found in the exporter's library, whose source it parses."""
    from torch.onnx._internal.exporter import _registration

    library = getattr(_registration, "onnxscript_apis", None)
    with _replaced(library, "get_torchlib_ops", lambda read: functools.partial(_read, read)):
        yield


@functools.cache
def _read(read: Any) -> Any:
    return read()


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """Spare it all of this."""
    with applicable_rules_only(), few_collections(), few_operations(), library_read_once():
        yield


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
