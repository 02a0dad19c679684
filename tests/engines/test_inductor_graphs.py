"""The graph that PyTorch's compiler gets of a model of every family, for a CPU and for a GPU; nothing is compiled.

For a GPU the weights are fake tensors, which have a shape and a device and no data, so that none is needed.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from evovit_deploy import random_checkpoint
from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.engines.inductor.compiling import attentions, export_program
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, LevitEvolution, LevitStructure, Recipe, Structure
from tests.models.test_evit import FEW
from tests.models.test_evit import small as fusing
from tests.modules import module_of
from tests.timm_models import checkpoint_of, merging_of


def evo_deit() -> Checkpoint:
    """Three blocks, of which the last two work on half of the patches, each on its own choice."""
    structure = Structure(image_size=64, patch_size=16, embed_dim=64, depth=3, num_heads=1, num_classes=7)
    evolution = Evolution((1, 0.5, 0.5), (1, 0.5, 0.5), stage_starts=(1, 2))
    return random_checkpoint(Recipe("tiny_vit", "evo_deit", structure, evolution))


def levit() -> Checkpoint:
    """Three stages of one block, and the two subsampling attentions between them."""
    structure = LevitStructure(128, (32, 48, 64), 16, (2, 3, 4), (1, 1, 1), num_classes=7)
    return random_checkpoint(Recipe("tiny_levit", "evo_levit", structure, LevitEvolution((0.5, 0.5), 1)))


def evit() -> Checkpoint:
    return fusing("deit_small_patch16_224", FEW, 3)


def tome() -> Checkpoint:
    return merging_of("vit_small_patch16_224 avg", (4, 3))


def evolved_dinov2() -> Checkpoint:
    half = Evolution((1, 0.5), (1, 0.5), stage_starts=(1,))
    return checkpoint_of("vit_small_patch14_reg4_dinov2", half)


KEPT, FEATURES = ("logits", "kept"), ("embedding", "class_token", "patch_tokens", "block_1")
# Name: the model, its outputs, the selection, the number of attentions.
MODELS: dict[str, tuple[Callable[[], Checkpoint], tuple[str, ...], str, int]] = {
    **{f"evo_deit {pattern}": (evo_deit, KEPT, pattern, 3) for pattern in PATTERNS},
    **{f"levit {pattern}": (levit, KEPT, pattern, 5) for pattern in ("topk", "rank", "onehot")},
    "evit": (evit, KEPT, "auto", 3),
    "tome": (tome, ("logits", "sources", "sizes"), "auto", 2),
    "registers, features": (evolved_dinov2, FEATURES, "auto", 2),
}


def built(name: str, precision: Any = "fp32", image_input: Any = "float32") -> Any:
    checkpoint, outputs, selection, _ = MODELS[name]
    return module_of(checkpoint(), ModelOptions(precision, image_input, selection, outputs))


def graph(module: Any, high: int = 1, device: str = "cpu") -> Counter[str]:
    """The operators of a program for 1 to ``high`` images."""
    program = export_program(module, module.output_names, 1, high, device)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    names = Counter(str(node.target).removeprefix("aten.").partition(".")[0] for node in calls)
    assert names["scaled_dot_product_attention"] == attentions(program)
    return names


@functools.cache
def here(name: str) -> Counter[str]:
    return graph(built(name))


def on_a_fake_gpu(module: Any) -> Counter[str]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in module.modules():
            for key, value in part._buffers.items():
                part._buffers[key] = None if value is None else torch.empty_like(value, device="cuda")
            for key, value in part._parameters.items():
                if value is not None:
                    part._parameters[key] = nn.Parameter(torch.empty_like(value, device="cuda"), False)
        return graph(module, device="cuda")


@pytest.mark.parametrize("name", MODELS)
def test_every_attention_is_one_operator_and_all_operators_are_pytorchs_own(name: str) -> None:
    """:func:`export_program` raises where one is not."""
    calls = here(name)
    assert calls["scaled_dot_product_attention"] == MODELS[name][-1]
    # What is left of softmax are the rows of class attention, which stand beside the attentions and not in them.
    assert calls["softmax"] < MODELS[name][-1]


@pytest.mark.parametrize(
    ("name", "precision"), [("evo_deit sort", "bf16"), ("levit topk", "fp16"), ("evit", "bf16"), ("tome", "fp16")]
)
def test_half_precision_decoded_images_and_a_range_change_nothing_of_it(name: str, precision: str) -> None:
    assert graph(built(name, precision, "uint8"), high=4)["scaled_dot_product_attention"] == MODELS[name][-1]


@pytest.mark.parametrize("name", ["evo_deit sort", "evo_deit rank", "evit", "tome"])
def test_on_a_gpu_patches_are_a_matrix_product_and_on_a_cpu_a_convolution(name: str) -> None:
    there = on_a_fake_gpu(built(name))
    assert (here(name)["conv2d"], there["conv2d"]) == (1, 0)
    assert there["linear"] == here(name)["linear"] + 1
    assert there["scaled_dot_product_attention"] == MODELS[name][-1]
    # Beside the patches the device decides nothing.
    patches = {"conv2d", "linear", "flatten", "reshape", "permute", "transpose", "sym_size"}
    assert set(here(name) - there) | set(there - here(name)) <= patches


@pytest.mark.parametrize("name", ["evo_deit sort", "levit topk"])
def test_exporting_is_not_what_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to torch 2.11 ``is_exporting()`` is true under torch.compile as well; the graph is the same whatever it says."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: False)
    assert graph(built(name)) == here(name)


@pytest.mark.parametrize("name", ["evo_deit sort", "levit topk"])
def test_so_it_is_under_torch_compile(name: str) -> None:
    module, seen = built(name), []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        seen.extend(getattr(node.target, "__name__", str(node.target)) for node in graph.graph.nodes)
        return graph.forward

    size = module.structure.image_size
    with torch.inference_mode():
        torch.compile(module, backend=backend, fullgraph=True)(torch.zeros(2, 3, size, size))
    assert seen.count("scaled_dot_product_attention") == MODELS[name][-1]
    assert not [called for called in seen if "evovit" in called]
