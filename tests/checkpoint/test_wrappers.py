"""Weights as wrappers and training frameworks save them, and which of several are taken."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.checkpoint.finding import find_weights
from evovit_deploy.errors import CheckpointError

from .forms import evo_deit, inference, refused, same, saved

# A tensor of every kind of name that Evo-DeiT, Evo-LeViT and timm's ViT have; values tell them apart.
NAMES = {
    "evo_deit": (
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.mlp.fc1.weight",
        "qks.0.qk.weight",
        "head.weight",
    ),
    "evo_levit": (
        "cls_token",
        "poss",
        "patch_embed.0.c.weight",
        "blocks.0.m1.m.qkv.c.weight",
        "blocks.2.poss",
        "head.l.weight",
    ),
    "timm": (
        "cls_token",
        "patch_embed.proj.bias",
        "blocks.11.attn.qkv.weight",
        "blocks.11.ls1.gamma",
        "norm.bias",
        "head.weight",
    ),
}
TINY = {family: {name: torch.full((2, 1), float(i)) for i, name in enumerate(names)} for family, names in NAMES.items()}
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def plus(state: dict[str, Tensor], number: float) -> dict[str, Tensor]:
    return {key: tensor + number for key, tensor in state.items()}


def found(content: Any, ema: bool = False) -> Any:
    return find_weights(content, "file.pth", ema)


@given(data=st.data())
def test_any_nesting_of_wrappers_gives_the_models_own_names(data: st.DataObject) -> None:
    state = TINY[data.draw(st.sampled_from(sorted(TINY)))]
    own = data.draw(st.lists(st.sampled_from(("model", "net", "backbone", "encoder", "vit", "a_b", "x1")), max_size=3))
    around = data.draw(st.lists(st.sampled_from(WRAPPERS), max_size=3))
    order = data.draw(st.permutations([*own, *around]))
    prefix = "".join(f"{part}." for part in order)
    stripped = "".join(f"{part}." for part in order if part not in WRAPPERS)
    inside = {i: data.draw(st.sampled_from(("", *(f"{wrapper}." for wrapper in WRAPPERS)))) for i in range(12)}

    def name(key: str) -> str:  # some blocks wrapped one by one
        parts = key.split(".")
        if parts[0] in ("blocks", "qks"):
            parts[1] += f".{inside[int(parts[1])]}".rstrip(".")
        return prefix + ".".join(parts)

    wrapped: dict[str, Any] = {name(key): tensor for key, tensor in state.items()}
    beside = {"criterion.pos_weight": torch.ones(3), "train_acc.correct": torch.zeros(())} if own else {}
    wrapped.update(data.draw(st.sampled_from(({}, beside))))
    section = data.draw(st.sampled_from(((), ("model",), ("state_dict",), ("module",), ("state", "model"))))
    content: Any = wrapped
    for entry in reversed(section):
        content = {entry: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    result = found(content)
    assert same(result.state, state)
    notes = " ".join(result.notes)
    assert (f"the prefix `{stripped}` was stripped" in notes) == bool(own)
    assert all(f"`{wrapper}.`" in notes for wrapper in around)
    assert ("criterion.pos_weight" in notes) == ("criterion.pos_weight" in wrapped)


@given(st.sampled_from(sorted(TINY)))
def test_a_models_own_names_stay_as_they_are(family: str) -> None:
    assert found({"model": TINY[family]}) == ("model", TINY[family], [])


def loads(state: dict[str, Tensor], content: Any, path: Path) -> tuple[str, ...]:
    checkpoint = load_checkpoint(saved(content, path))
    assert same(checkpoint.state, inference(state))
    return checkpoint.notes


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda s: {"state_dict": prefixed("model.", s), "pytorch-lightning_version": "2.4.0"}, "prefix `model.`"),
        (lambda s: prefixed("net.", s), "prefix `net.`"),
        (lambda s: {"model": prefixed("module.backbone.", s)}, "prefix `backbone.`"),
        (lambda s: {k.replace("blocks.3.", "blocks.3._orig_mod."): t for k, t in s.items()}, "`_orig_mod.`"),
        (lambda s: {**prefixed("module.", s), "n_averaged": torch.tensor(4)}, "averaged weights only (AveragedModel)"),
        (lambda s: {"model_ema": s}, "averaged weights only (`model_ema`)"),
        (lambda s: {"state_dict_ema": s}, "averaged weights only (`state_dict_ema`)"),
        (lambda s: {"state_dict": {**prefixed("model.", s), "criterion.weight": torch.ones(2)}}, "`criterion.weight`"),
    ],
)
def test_wrapped_checkpoints_load_and_say_what_was_stripped(
    state: dict[str, Tensor], path: Path, wrap: Callable[[Any], Any], said: str
) -> None:
    assert any(said in note for note in loads(state, wrap(state), path))


RAW_AND_AVERAGED: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor]], Any]] = {
    "authors": lambda raw, ema: {"model": raw, "model_ema": ema},
    "timm": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
    "two prefixes": lambda raw, ema: {"state_dict": {**prefixed("model.", raw), **prefixed("ema.", ema)}},
    "AveragedModel beside": lambda raw, ema: {
        "state_dict": {**prefixed("model.", raw), **prefixed("copy.module.", ema), "copy.n_averaged": torch.tensor(1)}
    },
    "Lightning's callback": lambda raw, ema: {
        "state_dict": prefixed("net.", ema),
        "current_model_state": prefixed("net.", raw),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
    "another callback": lambda raw, ema: {"state_dict": raw, "callbacks": {"EMACallback": {"weights": ema}}},
    "ema_pytorch": lambda raw, ema: {
        **prefixed("online_model.", raw),
        **prefixed("ema_model.", ema),
        "step": torch.ones(1),
    },
}


@pytest.mark.parametrize("kind", sorted(RAW_AND_AVERAGED))
@pytest.mark.parametrize("family", sorted(TINY))
def test_raw_and_averaged_weights_are_told_apart_and_both_named(kind: str, family: str) -> None:
    raw, ema = TINY[family], plus(TINY[family], 100)
    content = RAW_AND_AVERAGED[kind](raw, ema)
    first, second = found(content), found(content, ema=True)
    assert same(first.state, raw)
    assert any("raw weights were taken" in note and "--ema takes them" in note for note in first.notes)
    assert same(second.state, ema)
    assert any("averaged weights were taken" in note and "leave out --ema" in note for note in second.notes)
    assert first.source != second.source


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (
            lambda s: {"student": prefixed("module.", s), "teacher": plus(s, 1)},
            ("`student`", "`teacher`", "content['teacher']"),
        ),
        (
            lambda s: prefixed("student.", s) | prefixed("teacher.", plus(s, 1)),
            ("`student.`", "startswith('teacher.')"),
        ),
        (
            lambda s: {"state_dict": prefixed("a.b.", s) | prefixed("a.c.", plus(s, 1))},
            ("`a.b.`", "content['state_dict']"),
        ),
        (lambda s: {"model_ema": s, "swa": plus(s, 1)}, ("`model_ema`", "`swa`")),
    ],
)
def test_weights_of_two_models_are_listed_not_guessed(content: Callable[[Any], Any], names: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"weights of 2 models.*save that one alone") as caught:
        found(content(TINY["evo_deit"]))
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    "content",
    [
        lambda s: {"model": s, "teacher": plus(s, 1)},
        lambda s: {"state_dict": prefixed("model.", s) | prefixed("teacher.", plus(s, 1))},
        lambda s: s | prefixed("teacher.", plus(s, 1)),
    ],
)
def test_what_is_called_the_model_is_taken_and_the_other_named(content: Callable[[Any], Any]) -> None:
    result = found(content(TINY["timm"]))
    assert same(result.state, TINY["timm"])
    assert any("also holds" in note and "teacher" in note for note in result.notes)


def test_one_model_saved_under_two_prefixes_is_one_model() -> None:
    assert same(found(prefixed("a.", TINY["timm"]) | prefixed("loss.a.", TINY["timm"])).state, TINY["timm"])


def test_a_classifier_beside_the_model_is_not_left_out() -> None:
    state = prefixed("backbone.", {k: t for k, t in TINY["timm"].items() if not k.startswith("head.")})
    with pytest.raises(CheckpointError, match=r"no `head.weight`.*`fc.weight`.*rename it to `backbone.head.weight`"):
        found({**state, "fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(3)})
    assert found({**state, "criterion.weight": torch.ones(3)}).notes[-1].endswith("`criterion.weight`")


def test_two_tensors_of_one_name_are_refused(state: dict[str, Tensor], path: Path) -> None:
    saved({**state, "module.cls_token": state["cls_token"] + 1}, path)
    refused(path, "`cls_token` and `module.cls_token`, two different tensors")
    loads(state, {**state, "module.cls_token": state["cls_token"].clone()}, path)


@pytest.mark.parametrize("timm", [None, "vit_tiny_patch16_224"])
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            ("vit.embeddings.cls_token", "classifier.weight"),
            "names of Hugging Face transformers, such as `vit.embeddings",
        ),
        (("model.deit.embeddings.patch_embeddings.projection.weight",), "Hugging Face"),
        (("encoder.layer.3.attention.attention.query.weight",), "Hugging Face"),
        (("class_token", "encoder.layers.encoder_layer_0.mlp.0.weight"), "names of torchvision"),
        (
            ("backbone.cls_token", "backbone.patch_embed.projection.weight", "backbone.layers.0.ln1.weight"),
            "MMPretrain",
        ),
        (
            ("base_model.model.blocks.0.attn.qkv.lora_A.default.weight", "base_model.model.cls_token"),
            "merge_and_unload",
        ),
        (("_fsdp_wrapped_module._flat_param",), "full_state_dict=True"),
    ],
)
def test_names_of_other_libraries_are_the_reason(
    path: Path, names: tuple[str, ...], reason: str, timm: str | None
) -> None:
    message = refused(saved({name: torch.zeros(2, 2) for name in names}, path), reason, timm=timm)
    assert "is missing" not in message


def test_a_name_cannot_write_to_the_terminal(path: Path) -> None:
    message = refused(saved(prefixed("\x1b[31m.\n", TINY["evo_deit"]), path), r"\\x1b\[31m|is missing|shape")
    assert "\x1b" not in message


def test_prefix_of_timm_weights(path: Path) -> None:
    import timm

    name = "vit_tiny_patch16_224"
    model = timm.create_model(name, num_classes=3, depth=3).eval()
    saved({"state_dict": prefixed("net.", AveragedModel(model).state_dict())}, path)
    with pytest.raises(CheckpointError, match="missing: `blocks"):  # of 12 blocks: the names were understood
        load_checkpoint(path, timm=name)


@pytest.fixture
def foreign() -> Any:
    """A class of a package that is not installed where the file is read."""
    made: list[str] = []

    def make(module: str, name: str, base: type) -> Any:
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            made.append(".".join(parts[:i]))
            sys.modules.setdefault(made[-1], types.ModuleType(made[-1]))
            if i > 1:
                setattr(sys.modules[".".join(parts[: i - 1])], parts[i - 1], sys.modules[made[-1]])
        kind = type(name, (base,), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        return kind

    def forget() -> None:
        for name in made:
            sys.modules.pop(name, None)

    make.forget = forget  # type: ignore[attr-defined]
    yield make
    forget()


@pytest.mark.parametrize(
    ("module", "name", "base"),
    [
        ("lightning.fabric.utilities.data", "AttributeDict", dict),
        ("pytorch_lightning.utilities.parsing", "AttributeDict", dict),
        ("omegaconf.dictconfig", "DictConfig", object),
        ("mmengine.config.config", "ConfigDict", dict),
    ],
)
def test_hyperparameters_of_training_frameworks(
    state: dict[str, Tensor], path: Path, foreign: Any, module: str, name: str, base: type
) -> None:
    parameters = foreign(module, name, base)()
    if base is dict:
        parameters.update(model="my_model", lr=0.1, nested={"a": [1]})
    else:
        parameters.__dict__["_content"] = {"lr": dict}
    content = {
        "state_dict": prefixed("model.", state),
        "hyper_parameters": parameters,
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(1.0), "best_k_models": {}}
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "loops": {"fit_loop": {"state_dict": {}}},
        "epoch": 7,
    }
    saved(content, path)
    foreign.forget()
    checkpoint = load_checkpoint(path)
    assert same(checkpoint.state, inference(state))
    assert checkpoint.epoch == 7
    assert module.split(".")[0] not in sys.modules
    if base is dict:
        assert checkpoint.args == {"model": "my_model", "lr": "0.1"}


def test_evo_deit_of_another_depth_under_a_prefix_is_still_named(path: Path) -> None:
    refused(saved(prefixed("model.", evo_deit(depth=10)), path), "has 10 blocks")
