"""timm's models by name, offline: only what timm itself knows, never a download."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import InputError, translate
from ...suggest import did_you_mean

__all__ = ["create", "resolve_name"]

_HUBS = ("hf-hub:timm/", "hf_hub:timm/", "timm/")
_START = 0.02  # deviation of timm's other embeddings


def resolve_name(name: str) -> str:
    """Resolve ``vit_small_patch16_224``, with or without a tag (``.augreg_in1k``) and the hub's prefix (``timm/``), as timm
    knows it.

    Raises:
        InputError: timm has no such model, or no such weights of it; the message lists what is close.
    """
    import timm

    prefix = next((prefix for prefix in _HUBS if name.startswith(prefix)), "")
    name = name.removeprefix(prefix)
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        known = timm.list_models()
        hint = did_you_mean(model, known) or " For example: vit_small_patch16_224, deit3_small_patch16_224."
        raise InputError(
            f"timm {timm.__version__} has no model called {name!r}.{hint} Those that work: evovit list timm"
        )
    if tag:
        tags = [found.partition(".")[2] for found in timm.list_models(model, include_tags=True)]
        if tag not in tags:
            hint = did_you_mean(tag, tags)
            raise InputError(
                f"timm's {model} has no weights called {tag!r}.{hint} Valid: {', '.join(tags) or 'no tag'}."
            )
    return name


def create(name: str, seed: int | None = None, **options: Any) -> nn.Module:
    """Return timm's module in eval mode, in FP32, without its trained weights.

    LayerScale starts at 1 here, and class and register tokens at random: timm starts them at (nearly) zero, and a network
    whose blocks do nothing would prove nothing.

    Args:
        name: From :func:`resolve_name`.
        seed: Of the random weights; None leaves the tensors without values, for weights that are loaded into it.
        options: Of the model, such as ``img_size``.

    Raises:
        InputError: timm refuses the options.
    """
    import timm

    with translate(InputError, f"timm could not make {name}"), torch.random.fork_rng(devices=[]):
        if seed is None:
            with torch.device("meta"):
                return timm.create_model(name, pretrained=False, **options).eval()  # type: ignore[no-any-return]
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **options)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith(".gamma"):
                    parameter.fill_(1.0)
                elif key in ("cls_token", "reg_token", "dist_token"):
                    parameter.normal_(0, _START)
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]
