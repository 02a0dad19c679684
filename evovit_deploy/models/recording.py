"""Looking at the scores that a module selects by, and choosing in its place, without making either part of the module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

__all__ = ["given_merges", "given_selections", "recorded_merges", "recorded_scores"]


@contextlib.contextmanager
def recorded_scores(module: Any) -> Iterator[list[NDArray[Any]]]:
    """Record the scores of every selection as a module makes them: [B, N] float32 each, in order; nothing for None.

    The module's ``selection_of(scores, keep)`` is where every selection is decided, by scores [B, P + N] whose first P are
    those of class token and registers. Meanwhile it selects in place, so that every score belongs to the patch at its position.
    A module whose tokens do not come back says which there are, ``selection_of(scores, keep, origin)``; the scores of those
    that are gone are NaN then, and those of tokens that were made of others follow the patches'.
    """
    scores: list[NDArray[Any]] = []
    if module is None:
        yield scores
        return
    prefix = module.structure.prefix_tokens

    def record(given: Any, decide: Callable[[Any], Any], origin: Any) -> Any:
        seen = given[:, prefix:].float()
        scores.append((seen if origin is None else _in_place(seen, origin[:, prefix:] - prefix, module)).cpu().numpy())
        return decide(given)

    with _deciding(module, record):
        yield scores


@contextlib.contextmanager
def given_selections(module: Any, kept: Sequence[NDArray[Any]]) -> Iterator[None]:
    """Let a module keep these patches in place of those that its scores would choose; everything else is as ever.

    Args:
        module: As for :func:`recorded_scores`; it runs once within the block.
        kept: [B, K] positions of patches for every selection, in order.
    """
    import torch

    prefix, sets = module.structure.prefix_tokens, iter(kept)

    def choose(given: Any, decide: Callable[[Any], Any], origin: Any) -> Any:
        positions = torch.from_numpy(next(sets)).to(given.device) + prefix
        if origin is None:
            patches = torch.zeros_like(given).scatter(1, positions, 1.0)
        else:
            patches = (origin[:, :, None] == positions[:, None, :]).any(-1).to(given.dtype)
        return decide(torch.cat((given[:, :prefix] + 1.0, patches[:, prefix:]), 1))

    with _deciding(module, choose):
        yield


def _in_place(seen: Any, numbers: Any, module: Any) -> Any:
    """[B, M] scores of tokens with these numbers -> [B, N + F] by number, NaN where there is none."""
    import torch

    size = module.structure.num_patches + len(module.left)
    return torch.full((len(seen), size), float("nan"), device=seen.device).scatter(1, numbers.long(), seen)


@contextlib.contextmanager
def recorded_merges(module: Any) -> Iterator[list[NDArray[Any]]]:
    """Record the scores of every merge as a module makes them: [B, Ta, Tb] float32 each, in order; nothing for None.

    The module's ``decide(scores, r)`` is where every merge is decided, by the scores of :func:`.merging.likeness`.
    """
    scores: list[NDArray[Any]] = []
    if module is None:
        yield scores
        return
    decide = module.decide

    def record(given: Any, r: int) -> Any:
        scores.append(given.float().cpu().numpy())
        return decide(given, r)

    with _standing_in(module, "decide", record):
        yield scores


@contextlib.contextmanager
def given_merges(module: Any, sources: Sequence[NDArray[Any]]) -> Iterator[None]:
    """Let a module merge as another one did, in place of what its scores would choose; everything else is as ever.

    Args:
        module: As for :func:`recorded_merges`; it runs once within the block.
        sources: [B, N] int64 the token of every patch after each merge, in order.
    """
    import torch

    prefix, later = module.structure.prefix_tokens, iter(sources)
    before = prefix + torch.arange(module.structure.num_patches).expand(sources[0].shape)

    def choose(given: Any, r: int) -> Any:
        nonlocal before
        after = torch.from_numpy(next(later))
        tokens = prefix + given.shape[1] + given.shape[2]
        place = torch.arange(tokens, dtype=torch.float32).repeat(len(after), 1)  # the first P stay where they are
        place = place.scatter(1, before, after.float())
        before = after
        return place.to(given.device)

    with _standing_in(module, "decide", choose):
        yield


@contextlib.contextmanager
def _standing_in(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let ``function`` stand in for a method of the module."""
    outer = vars(module).get(name)
    setattr(module, name, function)
    try:
        yield
    finally:
        if outer is None:
            delattr(module, name)  # the method of the class shows again
        else:
            setattr(module, name, outer)


@contextlib.contextmanager
def _deciding(module: Any, replace: Callable[[Any, Callable[[Any], Any], Any], Any]) -> Iterator[None]:
    """Let ``replace(scores, decide, origin)`` stand in for the module's decisions; ``decide`` is the module's own."""
    decide = module.selection_of

    def selection_of(given: Any, keep: int, origin: Any = None) -> Any:
        return replace(given, lambda scores: decide(scores, keep), origin)

    pattern = module.pattern
    module.pattern = "topk" if pattern == "sort" else pattern
    try:
        with _standing_in(module, "selection_of", selection_of):
            yield
    finally:
        module.pattern = pattern
