"""What is left of a state dict when everything that is of training only is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TRAINING_ONLY", "clean"]

TRAINING_ONLY = ("head_cls.", "head_cls_dist.", "norm_cls.")


def clean(state: dict[str, Any], where: str) -> dict[str, Tensor]:
    """Drop training-only heads; every value left is a plain tensor on the CPU.

    Raises:
        CheckpointError: A value that is no tensor, or a tensor without usable values.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if str(key).startswith(TRAINING_ONLY):
            continue
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{where}: `{key}` is a {type(value).__name__} among the weights; a state dict holds tensors only."
            )
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            kind = "quantized" if value.is_quantized else f"{value.layout}, on device {value.device}"
            raise CheckpointError(
                f"{where}: `{key}` is not a plain dense tensor ({kind}); save the weights as float32 first."
            )
        tensors[str(key)] = value.detach()
    return tensors
