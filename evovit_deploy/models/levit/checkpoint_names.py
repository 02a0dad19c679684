"""The two copies of the blocks in an Evo-LeViT checkpoint: `blocks.*`, one per block, and `stage_blocks.*`, as they run.

stage_blocks.0.m.qkv...       attention of a block that runs on all tokens  = blocks.0.m1.m.qkv...
stage_blocks.1.m.0...         its MLP                                      = blocks.0.m2.m.0...
stage_blocks.4.kv...          subsampling attention                        = blocks.2.kv...
stage_blocks.5.m.0...         the MLP after it                             = blocks.3.m.0...
stage_blocks.6.m.0.m.qkv...   a group of evolved blocks: its attentions    = blocks.4.m1.m.qkv...
stage_blocks.6.m.1.m.0...     and MLPs in turn                             = blocks.4.m2.m.0...
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["one_copy"]

_ENTRY = re.compile(r"stage_blocks\.(\d{1,4})\.(.+)")


def one_copy(state: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], int | None]:
    """Return one copy of the blocks, as ``blocks.*``, without BatchNorm's counters.

    Args:
        state: All tensors, with either copy or both.
        where: The checkpoint, for messages.

    Returns:
        The tensors, and the number of first blocks that run on all tokens; None when there is no ``stage_blocks.*``.

    Raises:
        CheckpointError: The copies differ, or ``stage_blocks.*`` is not a sequence that this version knows.
    """
    import torch

    state = {key: tensor for key, tensor in state.items() if not key.endswith(".num_batches_tracked")}
    staged = {key: tensor for key, tensor in state.items() if key.startswith("stage_blocks.")}
    result = {key: tensor for key, tensor in state.items() if key not in staged}
    if not staged:
        return result, None
    renamed, full_blocks = _rename(staged, where)
    if not any(key.startswith("blocks.") for key in result):
        return {**result, **renamed}, full_blocks
    for key, tensor in renamed.items():
        other = result.get(key)
        if other is None or other.shape != tensor.shape or not torch.equal(other, tensor):
            raise CheckpointError(
                f"{where} holds every block twice, and the two copies of `{key}` (`blocks.*` and `stage_blocks.*`) differ, so "
                "which one was trained cannot be determined. Load it into the authors' model class and save its state dict."
            )
    return result, full_blocks


def _rename(staged: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], int]:
    """``stage_blocks.*`` as ``blocks.*``, and the number of blocks before the first group or subsampling."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in staged.items():
        match = _ENTRY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"{where}: `{key}` is not a block of an Evo-LeViT.")
        entries.setdefault(int(match[1]), {})[match[2]] = tensor
    renamed: dict[str, Tensor] = {}
    block, full_blocks, previous = -1, 0, ""
    for number in range(max(entries) + 1):
        kind = _kind(entries.get(number, {}))
        fits = {"mlp": ("attention", "subsample"), "": ()}.get(kind, ("", "mlp", "group"))
        if previous not in fits or (kind == "attention" and block >= 0 and block + 1 != full_blocks):
            raise CheckpointError(
                f"{where}: `stage_blocks.{number}` is {kind or 'missing or unknown'} after {previous or 'nothing'}; expected "
                "full blocks (attention, then mlp) in stage 1 only, then one group per stage, with a subsampling attention and "
                "its mlp between stages. Other schedules are not supported."
            )
        if kind in ("attention", "subsample"):
            block += 1
            full_blocks += kind == "attention"
        elif kind == "mlp" and previous == "subsample":
            block += 1
        for rest, tensor in entries[number].items():
            if kind == "group":  # m.3.m.2.c.weight
                _, place, inner = rest.split(".", 2)
                renamed[f"blocks.{block + 1 + int(place) // 2}.m{1 + int(place) % 2}.{inner}"] = tensor
            elif kind == "subsample" or previous == "subsample":
                renamed[f"blocks.{block}.{rest}"] = tensor
            else:
                renamed[f"blocks.{block}.m{1 if kind == 'attention' else 2}.{rest}"] = tensor
        if kind == "group":
            block += 1 + max(int(rest.split(".")[1]) for rest in entries[number]) // 2
        previous = kind
    return renamed, full_blocks


def _kind(entry: dict[str, Tensor]) -> str:
    """What one entry of ``stage_blocks`` is; empty when it is none of them."""
    for kind, pattern in (
        ("group", r"m\.\d+\.m\."),
        ("subsample", r"kv\."),
        ("attention", r"m\.qkv\."),
        ("mlp", r"m\.0\.c\."),
    ):
        if any(re.match(pattern, rest) for rest in entry):
            return kind
    return ""
