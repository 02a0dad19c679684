from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import pathlib
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evovit_deploy.checkpoint import Checkpoint, load_checkpoint, random_checkpoint
from evovit_deploy.errors import CheckpointError
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import load_recipe
from tests.modules import module_of

from .forms import custom, evo_deit, inference, same, saved, tiny_224, training_checkpoint


def test_training_checkpoint(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(training_checkpoint(state), path))
    assert same(checkpoint.state, inference(state))
    assert (checkpoint.source, checkpoint.stored_dtype, checkpoint.epoch) == ("model", "float32", 299)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.args == {"model": "my_model", "input_size": "16", "lr": "0.1", "betas": "[0.9]"}
    assert (checkpoint.path, checkpoint.random) == (path, False)


def test_without_a_head_it_gives_its_embedding(state: dict[str, Tensor], path: Path) -> None:
    rest = {key: tensor for key, tensor in state.items() if not key.startswith("head")}
    checkpoint = load_checkpoint(saved(rest, path))
    structure = checkpoint.recipe.structure
    assert (structure.head, structure.num_classes) == (False, 64)
    assert any("there is no classification head: the output is `embedding`" in note for note in checkpoint.notes)
    images = torch.zeros(1, 3, structure.image_size, structure.image_size)
    module = module_of(checkpoint)
    assert module.output_names == ("embedding",)
    whole = module_of(load_checkpoint(saved(state, path)), ModelOptions(outputs=("embedding",), fold=False))
    assert (module(images)[0] - whole(images)[0]).abs().max() <= 1e-5
    with pytest.raises(CheckpointError, match=r"`head\.weight` is missing"):
        load_checkpoint(saved({**rest, "head.bias": state["head.bias"]}, path))


def test_structure_comes_from_the_tensors(path: Path) -> None:
    content = evo_deit(width=128, patch=8, grid=5, hidden=192, classes=7)
    structure = load_checkpoint(saved(content, path)).recipe.structure
    assert dataclasses.asdict(structure) == {
        "image_size": 40,
        "patch_size": 8,
        "embed_dim": 128,
        "depth": 12,
        "num_heads": 2,
        "mlp_ratio": 1.5,
        "num_classes": 7,
        # The same in every Evo-DeiT.
        "pool": "patches",
        "registers": 0,
        "activation": "gelu",
        "norm_eps": 1e-6,
        "pre_norm": False,
        "head": True,
    }


def test_averaged_weights_only_when_asked(state: dict[str, Tensor], path: Path) -> None:
    saved(training_checkpoint(state), path)
    checkpoint = load_checkpoint(path, ema=True)
    assert checkpoint.source == "model_ema"
    assert same(checkpoint.state, {key: tensor + 1 for key, tensor in inference(state).items()})


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "ordered", "parameters"])
def test_state_dicts(state: dict[str, Tensor], path: Path, wrap: str) -> None:
    contents: dict[str, Any] = {
        "bare": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "ordered": collections.OrderedDict(state),
        "parameters": {key: torch.nn.Parameter(tensor) for key, tensor in state.items()},
    }
    checkpoint = load_checkpoint(saved(contents[wrap], path))
    assert checkpoint.source == "state dict"
    assert same(checkpoint.state, inference(state))
    assert not any(tensor.requires_grad for tensor in checkpoint.state.values())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapper_prefixes_are_stripped(state: dict[str, Tensor], path: Path, prefix: str) -> None:
    saved({"model": {prefix + key: tensor for key, tensor in state.items()}}, path)
    assert same(load_checkpoint(path).state, inference(state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(state: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    stored = {key: tensor.to(dtype) for key, tensor in state.items()}
    checkpoint = load_checkpoint(saved(stored, path))
    assert checkpoint.stored_dtype == str(dtype).removeprefix("torch.")
    assert same(checkpoint.state, {key: tensor.float() for key, tensor in inference(stored).items()})


def test_mixed_types_are_all_named(state: dict[str, Tensor], path: Path) -> None:
    stored = {key: tensor.half() if key.startswith("qks") else tensor for key, tensor in state.items()}
    assert load_checkpoint(saved(stored, path)).stored_dtype == "float16, float32"


def test_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.source == "state dict"
    assert same(checkpoint.state, inference(state))


def test_the_content_decides_not_the_name(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.bin")
    assert same(load_checkpoint(tmp_path / "model.bin").state, inference(state))


def test_format_from_before_torch_1_6(state: dict[str, Tensor], path: Path) -> None:
    saved(training_checkpoint(state), path, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:2] != b"PK"
    assert same(load_checkpoint(path).state, inference(state))


def test_compressed_archive_is_not_read_as_raw_numbers(state: dict[str, Tensor], path: Path, tmp_path: Path) -> None:
    saved(state, path)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert same(load_checkpoint(packed).state, inference(state))


def test_numpy_values_and_paths_beside_the_weights(state: dict[str, Tensor], path: Path) -> None:
    args = argparse.Namespace(model="my_model", output_dir=pathlib.Path("runs/1"), lr=np.float32(0.1))
    extra = {"max_accuracy": np.float64(79.4), "history": np.arange(3), "args": args, "rng": np.array(["a"])}
    checkpoint = load_checkpoint(saved(training_checkpoint(state, **extra), path))
    assert same(checkpoint.state, inference(state))
    assert checkpoint.args == {"model": "my_model"}


def test_weights_outlive_the_file(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(state, path))
    path.write_bytes(bytes(path.stat().st_size))
    assert same(checkpoint.state, inference(state))


def test_loading_leaves_the_allow_list_of_torch_alone(state: dict[str, Tensor], path: Path) -> None:
    saved(training_checkpoint(state), path)
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with torch.serialization.safe_globals([argparse.Namespace]):
        load_checkpoint(path)
        assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_threads_do_not_disturb_each_other(state: dict[str, Tensor], path: Path) -> None:
    saved(training_checkpoint(state), path)
    results: list[Any] = []

    def load() -> None:
        try:
            results.append(load_checkpoint(path))
        except CheckpointError as error:
            results.append(error)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(result) for result in results] == [Checkpoint] * 6


def test_training_only_heads_are_dropped(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(state, path))
    assert not any(key.startswith(("head_cls", "norm_cls")) for key in checkpoint.state)
    assert any("head_cls" in note for note in checkpoint.notes)


def test_without_qkv_bias_zeros_are_filled_in(path: Path) -> None:
    content = evo_deit(bias=False)
    checkpoint = load_checkpoint(saved(content, path))
    assert torch.equal(checkpoint.state["qks.3.qk.bias"], torch.zeros(128))
    assert torch.equal(checkpoint.state["vs.11.v.bias"], torch.zeros(64))
    assert any("bias" in note for note in checkpoint.notes)


def test_patch_embedding_stored_as_a_matrix(state: dict[str, Tensor], path: Path) -> None:
    flat = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}
    checkpoint = load_checkpoint(saved(flat, path))
    assert checkpoint.recipe.structure.patch_size == 4
    assert same(checkpoint.state, inference(state))


def test_random_weights_follow_the_authors_initialisation() -> None:
    checkpoint = random_checkpoint(load_recipe("evo_deit_tiny_patch16_224"))
    weights = checkpoint.state
    assert set(weights) == set(inference(tiny_224()))
    assert all(weights[key].shape == tensor.shape for key, tensor in inference(tiny_224()).items())
    for key in ("qks.0.qk.weight", "blocks.11.mlp.fc2.weight", "head.weight", "pos_embed"):
        assert weights[key].std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(weights[key].mean().item()) < 1e-3
    assert weights["cls_token"].std().item() == pytest.approx(0.02, rel=0.2)
    bound = 1 / 768**0.5
    assert 0.99 * bound < weights["patch_embed.proj.weight"].abs().max().item() <= bound
    assert not weights["qks.3.qk.bias"].any()
    for norm in ("norm", "norms.4", "blocks.4.norm2"):
        assert torch.equal(weights[f"{norm}.weight"], torch.ones(192))
        assert not weights[f"{norm}.bias"].any()


def test_random_weights_depend_on_the_seed_only() -> None:
    recipe = custom()
    torch.manual_seed(1)
    first = random_checkpoint(recipe, seed=7)
    torch.manual_seed(2)
    assert same(first.state, random_checkpoint(recipe, seed=7).state)
    assert not same(first.state, random_checkpoint(recipe, seed=8).state)


def test_random_weights_say_so() -> None:
    checkpoint = random_checkpoint(custom(), seed=3)
    assert (checkpoint.random, checkpoint.path, checkpoint.sha256) == (True, None, None)
    assert checkpoint.source == "random weights (seed 3)"
    assert checkpoint.recipe == custom()


def test_random_weights_survive_saving(path: Path) -> None:
    checkpoint = random_checkpoint(custom())
    assert same(load_checkpoint(saved(checkpoint.state, path)).state, checkpoint.state)


@pytest.mark.parametrize("name", ["evo_deit_micro", "evo_deit_micro_keep70"])
def test_reference_checkpoints(reference: Path, name: str) -> None:
    checkpoint = load_checkpoint(reference / f"{name}.pth")
    structure = checkpoint.recipe.structure
    assert (structure.embed_dim, structure.num_heads, structure.depth) == (128, 2, 12)
    assert (structure.patch_size, structure.image_size, structure.num_classes) == (16, 112, 10)
    assert (checkpoint.source, checkpoint.epoch, checkpoint.recipe.name) == (
        "model",
        299,
        "evo_deit_c128h2_patch16_112",
    )
    averaged = load_checkpoint(reference / f"{name}.pth", ema=True)
    assert averaged.source == "model_ema"
    assert averaged.state.keys() == checkpoint.state.keys()
