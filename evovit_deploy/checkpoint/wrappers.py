"""Names in a state dict: what wrappers put around a model's own names, and the prefixes under which models lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import CheckpointError

__all__ = ["is_averaged", "roots", "unwrap"]

# DataParallel and AveragedModel, torch.compile, FSDP (torch's and fairscale's), activation checkpoints, Lightning's strategies.
_SEGMENTS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
_WRAPPER = re.compile(rf"(?:^|(?<=\.))({'|'.join(_SEGMENTS)})\.")
_BLOCK = re.compile(r"(?:^|\.)((?:blocks|stage_blocks|qks)\.\d+\.)")
_AVERAGED = re.compile(r"(?<![A-Za-z])(?:[Ee]ma|EMA|[Ss]wa|SWA|[Aa]vg|[Aa]verag(?:e|ed|ing))(?![a-z])")


def unwrap(state: Mapping[Any, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Take the names of wrappers out, wherever in a name they stand: ``blocks.0._orig_mod.norm2`` is ``blocks.0.norm2``.

    Args:
        state: Values by name.
        where: The checkpoint, for messages.

    Returns:
        The values by their own names, and what was taken out, such as ``module.``.

    Raises:
        CheckpointError: Two different tensors get the same name.
    """
    result: dict[str, Any] = {}
    came_from: dict[str, str] = {}
    taken: dict[str, None] = {}
    for key, value in state.items():
        old = str(key)
        name = _WRAPPER.sub("", old)
        taken.update(dict.fromkeys(f"{segment}." for segment in _WRAPPER.findall(old)))
        if name in result and not _equal(result[name], value):
            raise CheckpointError(
                f"{where} holds `{came_from[name]}` and `{old}`, two different tensors of one name, so which one belongs to the "
                "model cannot be determined. Save the state dict of the model alone, without its wrapper."
            )
        result[name], came_from[name] = value, old
    return result, list(taken)


def _equal(a: Any, b: Any) -> bool:
    import torch

    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return False
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def roots(names: Iterable[str]) -> list[str]:
    """List the prefixes under which a ViT or LeViT lies, each with its dot; ``""`` for one at the top.

    A model is where numbered blocks have a class token or a patch embedding beside them.
    """
    names = list(names)
    found = {name[: match.start(1)]: None for name in names if (match := _BLOCK.search(name))}
    heads = {name.partition("patch_embed.")[0] for name in names if "patch_embed." in name}
    return [root for root in found if root in heads or f"{root}cls_token" in names]


def is_averaged(part: str) -> bool:
    """Return whether a name says that weights are averaged over training: ``model_ema``, ``swa_model``, ``_average_model``."""
    return _AVERAGED.search(part) is not None
