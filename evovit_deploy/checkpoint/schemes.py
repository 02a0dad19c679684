"""Names that other libraries give to the same weights: recognised, to be named as the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import CheckpointError
from ..models.checks import quoted

__all__ = ["check_names"]


class _Scheme(NamedTuple):
    pattern: re.Pattern[str]
    what: str
    fix: str


_TO_TIMM = (
    "Load the weights into timm's model of the same size under timm's names, save its state dict, and export that with "
    "--from-timm NAME --weights FILE (docs/timm.md has the names side by side)"
)
_SCHEMES = (
    _Scheme(
        re.compile(r"(^|\.)(lora_[AB]|lora_embedding_[AB]|base_layer)\."),
        "has adapters of PEFT beside the weights",
        "Merge them before saving: model = model.merge_and_unload(); torch.save(model.state_dict(), 'weights.pth')",
    ),
    _Scheme(
        re.compile(r"(^|\.)_?flat_param(_\d+)?$"),
        "holds FSDP's flattened shards, which have no names of their own",
        "Save the full state dict: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
        "options=StateDictOptions(full_state_dict=True, cpu_offload=True))",
    ),
    _Scheme(
        re.compile(r"(^|\.)embeddings\.(cls_token|patch_embeddings\.)|(^|\.)encoder\.layer\.\d+\.attention\."),
        "has the names of Hugging Face transformers",
        _TO_TIMM,
    ),
    _Scheme(re.compile(r"(^|\.)encoder\.layers\.encoder_layer_\d+\."), "has the names of torchvision", _TO_TIMM),
    _Scheme(
        re.compile(r"(^|\.)patch_embed\.projection\.|(^|\.)layers\.\d+\.ln1\."), "has the names of MMPretrain", _TO_TIMM
    ),
)


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse weights under another library's names.

    Args:
        names: Of the tensors, without what wrappers put around them.
        where: The checkpoint, for messages.

    Raises:
        CheckpointError: Which library's names they are, an example, and what to do.
    """
    for scheme in _SCHEMES:
        example = next((name for name in names if scheme.pattern.search(name)), None)
        if example is not None:
            raise CheckpointError(f"{where} {scheme.what}, such as {quoted(example)}. {scheme.fix}.")
