"""Which weights of a file are meant: one model of possibly several, raw or averaged, under its own names.

A file is a state dict, or a dict with state dicts in it; a state dict is that of the model, or of something around it
(Lightning's module, a wrapper with ``backbone.``, a student with its teacher). What is certain is taken and said in a note;
what is not is an error that lists what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..models.checks import quoted, some
from .wrappers import is_averaged, roots, unwrap

__all__ = ["Found", "find_weights"]

# Entries and prefixes that say "the model" among several.
_MAIN = ("model", "state_dict", "model_state_dict", "current_model_state")
_KNOWN = (*_MAIN, "module", "net", "network", "weights", "params")  # of any model, to be named in the error
_DEPTH = 3


class Found(NamedTuple):
    """Weights inside a file."""

    source: str  # "model", "model_ema", "state dict"; with the prefix when there are several
    state: dict[str, Any]  # under the model's own names
    notes: list[str]


class _WeightsFile(NamedTuple):
    section: tuple[str, ...]  # entries of the file that lead to the state dict
    root: str  # prefix of the model's names in it
    averaged: bool
    state: dict[str, Any]
    beside: dict[str, Any]  # what else is in the state dict
    taken: list[str]  # names of wrappers that were stripped

    @property
    def names(self) -> list[str]:
        return [*self.section, *self.root.split(".")[:-1]]

    def __str__(self) -> str:
        parts = [quoted(".".join(self.section))] if self.section else []
        parts += [f"names that begin with {quoted(self.root)}"] if self.root else []
        return ", ".join(parts) or "names without a prefix"


def find_weights(content: Any, where: str, ema: bool) -> Found:
    """Find the weights of the one model in a checkpoint; averaged ones if asked for, or if there are no others.

    Args:
        content: Of the file.
        where: The checkpoint, for messages.
        ema: Whether averaged weights are wanted.

    Raises:
        CheckpointError: No weights, no such weights, or those of several models.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{where} holds a {type(content).__name__}, not weights; save them with torch.save(model.state_dict(), "
            "'weights.pth')."
        )
    candidates = _candidates(content, where)
    if not candidates:
        held = f", only {some(content)}" if content else ": it is an empty dict"
        raise CheckpointError(
            f"{where} holds no weights{held}. Valid: a dict with `model`, a dict with `state_dict`, or a state "
            "dict itself."
        )
    averaged = [candidate for candidate in candidates if candidate.averaged]
    raw = [candidate for candidate in candidates if not candidate.averaged]
    if ema and not averaged:
        raise CheckpointError(f"{where} has no EMA weights (`model_ema`); it holds {some(content)}. Leave out --ema.")
    chosen = _one_of(averaged if ema or not raw else raw, where)
    notes = _notes(chosen, candidates, asked=ema)
    _check_head(chosen, where)
    return Found(_source(chosen, len(candidates) > 1), chosen.state, notes)


def _candidates(content: Mapping[Any, Any], where: str) -> list[_WeightsFile]:
    """Every model in the file; if none is recognised, what is called weights, or else the file itself."""
    lightning_average = "current_model_state" in content  # Lightning's callback then has the average in `state_dict`
    found: list[_WeightsFile] = []
    others: list[_WeightsFile] = []
    for section, value in _sections(content):
        state, taken = unwrap(value, where)
        named = any(map(is_averaged, section)) or (lightning_average and section == ("state_dict",))
        prefixes = roots(state)
        # A model within another one's prefix is not part of that one.
        parts: dict[str, dict[str, Any]] = {root: {} for root in prefixes}
        beside: dict[str, Any] = {}
        for key, tensor in state.items():
            owner = max((root for root in prefixes if key.startswith(root)), key=len, default=None)
            if owner is not None:
                parts[owner][key[len(owner) :]] = tensor
            elif key.rpartition(".")[2] != "n_averaged":
                beside[key] = tensor
        for root, part in parts.items():
            average = part.pop("n_averaged", None) is not None or any(map(is_averaged, root.split(".")))
            found.append(_WeightsFile(section, root, named or average, part, beside, taken))
        if not prefixes and (not section or section[0] in _KNOWN or named):
            others.append(_WeightsFile(section, "", named, state, {}, taken))
    return found or [c for c in others if c.section] or others


def _sections(
    value: Mapping[Any, Any], section: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """State dicts in a file, each with the entries that lead to it."""
    import torch

    if any(isinstance(inner, torch.Tensor) for inner in value.values()):
        yield section, value
    if len(section) < _DEPTH:
        for name, inner in value.items():
            if isinstance(inner, Mapping) and isinstance(name, str) and "optim" not in name:
                yield from _sections(inner, (*section, name))


def _one_of(candidates: list[_WeightsFile], where: str) -> _WeightsFile:
    """The only candidate, or the one that is called the model."""
    different: list[_WeightsFile] = []
    for candidate in candidates:
        if not any(_same(candidate.state, other.state) for other in different):
            different.append(candidate)
    if len(different) == 1:
        return different[0]
    main = [candidate for candidate in different if not candidate.names or candidate.names[-1] in _MAIN]
    if len(main) == 1:
        return main[0]
    last = different[-1]
    state = "".join(f"[{name!r}]" for name in last.section)
    fix = (
        f"torch.save({{k: v for k, v in content{state}.items() if k.startswith('{last.root}')}}, 'weights.pth')"
        if last.root
        else f"torch.save(content{state}, 'weights.pth')"
    )
    raise CheckpointError(
        f"{where} holds the weights of {len(different)} models: {'; '.join(map(str, different))}. Which one is meant cannot be "
        f"told, so save that one alone; with what the file holds as `content`, for the last of them: {fix}"
    )


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    import torch

    return a.keys() == b.keys() and all(
        isinstance(a[key], torch.Tensor)
        and isinstance(b[key], torch.Tensor)
        and a[key].shape == b[key].shape
        and torch.equal(a[key], b[key])
        for key in a
    )


def _check_head(chosen: _WeightsFile, where: str) -> None:
    """Refuse to leave out a classifier that lies beside the model.

    Raises:
        CheckpointError: The model has no head, and there are tensors beside it that may be one.
    """
    if any(key.startswith("head.") for key in chosen.state):
        return
    layers = [key for key, value in chosen.beside.items() if getattr(value, "ndim", 0) > 1]
    if layers:
        root = quoted(chosen.root)[1:-1]
        raise CheckpointError(
            f"{where}: the model under `{root}` has no `head.weight`, and beside it lies {some(layers)}, which it does not "
            f"know. If that is its classifier, one linear layer, rename it to `{root}head.weight` and `{root}head.bias`; if "
            f"only training used it, save the names that begin with `{root}` alone."
        )


def _source(chosen: _WeightsFile, several: bool) -> str:
    name = ".".join(chosen.section)
    if name in ("", "state_dict"):
        name = "state dict"
    if name == "state_dict_ema":
        name = "model_ema"
    return f"{name}, {chosen.root.rstrip('.')}" if several and chosen.root else name


def _notes(chosen: _WeightsFile, candidates: list[_WeightsFile], asked: bool) -> list[str]:
    notes = []
    if chosen.root:
        notes.append(f"the prefix {quoted(chosen.root)} was stripped from the names")
    if chosen.taken:
        were = "were" if len(chosen.taken) > 1 else "was"
        notes.append(f"{' and '.join(map(quoted, chosen.taken))} of a wrapper {were} stripped from the names")
    if chosen.beside:
        notes.append(f"not part of the model and left out: {some(chosen.beside)}")
    others = [candidate for candidate in candidates if candidate is not chosen]
    if chosen.averaged and not asked:
        by = str(chosen) if any(map(is_averaged, chosen.names)) else "AveragedModel"
        notes.append(f"this file holds averaged weights only ({by}), so these were taken")
    raw = [str(candidate) for candidate in others if not candidate.averaged]
    averaged = [str(candidate) for candidate in others if candidate.averaged]
    if asked and raw:
        notes.append(
            f"averaged weights were taken ({chosen}); the raw ones are there too ({'; '.join(raw)}): leave out --ema"
        )
    elif raw:
        notes.append(f"the weights taken are {chosen}; the file also holds {'; '.join(raw)}")
    if averaged and not chosen.averaged:
        notes.append(
            f"raw weights were taken ({chosen}); averaged ones are there too ({'; '.join(averaged)}): --ema takes them"
        )
    elif averaged:
        notes.append(f"the weights taken are {chosen}; the file also holds {'; '.join(averaged)}")
    return notes
