from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evovit_deploy.checkpoint import load_checkpoint

from .forms import inference, refused, same, saved


def test_vanilla_deit_is_named(path: Path) -> None:
    content = {"cls_token": torch.zeros(1, 1, 192), "blocks.0.attn.qkv.weight": torch.zeros(576, 192)}
    refused(saved({"model": content}, path), "vanilla DeiT/ViT.*`evovit export --baseline deit_tiny_patch16_224`")


def test_vanilla_levit_is_named(path: Path) -> None:
    refused(saved({"blocks.0.m.attention_biases": torch.zeros(4, 9)}, path), "vanilla LeViT")


def test_another_model_lists_keys(path: Path) -> None:
    message = refused(saved({f"layer{i}.conv.weight": torch.zeros(1) for i in range(9)}, path), "a different model")
    assert "`qks.0.qk.weight`" in message
    assert "`layer0.conv.weight`" in message
    assert "5 more" in message


def test_missing_keys_are_listed(state: dict[str, Tensor], path: Path) -> None:
    content = {key: tensor for key, tensor in state.items() if not key.startswith("projs.5.")}
    refused(saved(content, path), r"missing: `projs\.5\.weight`, `projs\.5\.bias`")


def test_unexpected_keys_are_listed(state: dict[str, Tensor], path: Path) -> None:
    content = {**state, "dist_token": torch.zeros(1, 1, 64)}
    message = refused(saved(content, path), "unexpected: `dist_token`")
    assert "missing" not in message


@pytest.mark.parametrize("key", ["cls_token", "pos_embed", "patch_embed.proj.weight", "head.weight", "norm.bias"])
def test_any_missing_key_is_named(state: dict[str, Tensor], path: Path, key: str) -> None:
    refused(saved({k: v for k, v in state.items() if k != key}, path), f"`{key}`")


def test_bias_missing_in_one_block_only(state: dict[str, Tensor], path: Path) -> None:
    refused(saved({k: v for k, v in state.items() if k != "vs.2.v.bias"}, path), r"missing: `vs\.2\.v\.bias`")


def test_gap_between_blocks(state: dict[str, Tensor], path: Path) -> None:
    refused(saved({k: v for k, v in state.items() if ".7." not in k}, path), "block 7 is missing")


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("projs.3.weight", (64, 63), r"`projs\.3\.weight` has shape \[64, 63\]; expected \[64, 64\]"),
        ("qks.0.qk.weight", (64, 64), r"`qks\.0\.qk\.weight` has shape \[64, 64\]; expected \[128, 64\]"),
        ("cls_token", (64,), r"`cls_token` has shape \[64\]; expected \[1, 1, any\]"),
        ("pos_embed", (1, 16, 64), "`pos_embed` has 16 tokens; expected .*10 or 17"),
        ("pos_embed", (1, 1, 64), "`pos_embed` has 1 tokens"),
        ("patch_embed.proj.weight", (64, 3, 4, 8), "patches of 4 x 8; expected square"),
        ("patch_embed.proj.weight", (64, 50), r"\[64, 50\]; expected \[C, 3 P P\]"),
        ("patch_embed.proj.weight", (32, 3, 4, 4), "32 output channels, `cls_token` has 64"),
        ("head.weight", (3, 65), r"`head\.weight` has shape \[3, 65\]; expected \[any, 64\]"),
        ("head.weight", (0, 64), r"`head\.weight` has shape \[0, 64\]"),
    ],
)
def test_wrong_shape(state: dict[str, Tensor], path: Path, key: str, shape: tuple[int, ...], message: str) -> None:
    refused(saved({**state, key: torch.zeros(shape)}, path), message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(state: dict[str, Tensor], path: Path, value: float) -> None:
    broken = state["projs.3.weight"].clone()
    broken[5, 6] = value
    refused(saved({**state, "projs.3.weight": broken}, path), r"NaN or Inf in `projs\.3\.weight`; ")


def test_float64_beyond_float32(state: dict[str, Tensor], path: Path) -> None:
    refused(saved({**state, "norm.bias": torch.full((64,), 1e300, dtype=torch.float64)}, path), r"Inf in `norm\.bias`")


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.int8, "int8"), (torch.int64, "int64"), (torch.complex64, "complex64")]
)
def test_values_that_are_not_floats(state: dict[str, Tensor], path: Path, dtype: torch.dtype, name: str) -> None:
    content = {**state, "head.weight": torch.ones(3, 64, dtype=dtype)}
    refused(saved(content, path), rf"`head\.weight` holds {name} values")


def test_not_dense(state: dict[str, Tensor], path: Path) -> None:
    refused(saved({**state, "head.weight": torch.eye(3, 64).to_sparse()}, path), r"`head\.weight` is not a plain dense")


def test_tensor_without_data(state: dict[str, Tensor], path: Path) -> None:
    refused(saved({**state, "head.weight": torch.empty(3, 64, device="meta")}, path), r"`head\.weight` .*meta")


def test_something_else_among_the_weights(state: dict[str, Tensor], path: Path) -> None:
    refused(saved({**state, "version": 3}, path), "`version` is a int among the weights")


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"optimizer": {"state": {}}, "epoch": 3}])
def test_no_weights(path: Path, content: dict[str, Any]) -> None:
    message = refused(
        saved(content, path), "holds no weights, only" if content else "holds no weights: it is an empty dict"
    )
    for key in content:
        assert f"`{key}`" in message


@pytest.mark.parametrize("content", [[1, 2], 3, "text", torch.zeros(3)])
def test_no_dict(path: Path, content: Any) -> None:
    refused(saved(content, path), f"holds a {type(content).__name__}, not weights")


@pytest.mark.parametrize("absent", [{}, {"model_ema": None}, {"model_ema": {}}])
def test_averaged_weights_that_are_not_there(state: dict[str, Tensor], path: Path, absent: dict[str, Any]) -> None:
    saved({"model": state, **absent}, path)
    assert "Leave out --ema" in refused(path, "no EMA weights", ema=True)


def test_averaged_weights_of_a_bare_state_dict(state: dict[str, Tensor], path: Path) -> None:
    refused(saved(state, path), "no EMA weights", ema=True)


def test_only_averaged_weights(state: dict[str, Tensor], path: Path) -> None:
    saved({"model_ema": state}, path)
    assert same(load_checkpoint(path).state, inference(state))
    assert load_checkpoint(path).source == "model_ema"
    assert same(load_checkpoint(path, ema=True).state, inference(state))
