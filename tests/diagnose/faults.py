"""Models with one injected fault each: what half precision does to trained transformers, in small.

A fault changes the weights of a sound checkpoint so that FP32 still computes something sensible and FP16 does not. It names the
block that is to blame, and the parts of it that may be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from evovit_deploy import random_checkpoint
from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.models.levit.evo_levit import block_numbers
from tests.export.conftest import TINY
from tests.levit_reference import TINY as LEVIT
from tests.timm_models import checkpoint_of

State = dict[str, Tensor]
TIMM = "vit_small_patch14_reg4_dinov2"


@dataclass(frozen=True)
class Fault:
    """One fault in one model.

    Attributes:
        name: Of the kind.
        family: ``deit``, ``timm`` or ``levit``.
        block: To blame.
        inject: Changes the state in place.
        fold: Whether the export folds weights; some faults vanish with that.
    """

    name: str
    family: str
    block: int
    inject: Callable[[State, int], None]
    fold: bool = True

    def __str__(self) -> str:
        return f"{self.family}-{self.name}-{self.block}"

    def checkpoint(self, sound: Checkpoint | None = None) -> Checkpoint:
        """The faulty model, of the family's sound one or of another."""
        sound = sound or healthy(self.family)
        state = {key: tensor.clone() for key, tensor in sound.state.items()}
        self.inject(state, self.block)
        return dataclasses.replace(sound, state=state)


@cache
def healthy(family: str) -> Checkpoint:
    """The model before the fault."""
    if family == "deit":
        return grown(random_checkpoint(TINY))
    return checkpoint_of(TIMM) if family == "timm" else random_checkpoint(LEVIT)


def grown(checkpoint: Checkpoint) -> Checkpoint:
    """A random Evo-DeiT whose layers keep the size of their input, as those of a trained one do."""
    state = {k: 6 * t if t.dim() == 2 and "head" not in k else t for k, t in checkpoint.state.items()}
    return dataclasses.replace(checkpoint, state=state)


# Evo-DeiT, in the authors' names: qks.N.qk, vs.N.v, projs.N, norms.N, blocks.N.norm2, blocks.N.mlp.fc1.


def deit_mlp(s: State, n: int) -> None:
    s[f"blocks.{n}.mlp.fc1.weight"] *= 2.0**16
    s[f"blocks.{n}.mlp.fc2.weight"] *= 2.0**-16


def deit_logits(s: State, n: int) -> None:
    s[f"qks.{n}.qk.weight"] *= 2.0**8


def deit_value(s: State, n: int) -> None:
    s[f"vs.{n}.v.weight"] *= 2.0**16
    s[f"projs.{n}.weight"] *= 2.0**-16


def deit_query(s: State, n: int) -> None:
    half = len(s[f"qks.{n}.qk.weight"]) // 2
    for part in ("weight", "bias"):
        s[f"qks.{n}.qk.{part}"][:half] *= 2.0**20
        s[f"qks.{n}.qk.{part}"][half:] *= 2.0**-20


def deit_residual(s: State, n: int) -> None:
    massive(
        s,
        f"blocks.{n}.mlp.fc2.bias",
        [f"norms.{i}" for i in range(n + 1, 4)] + [f"blocks.{i}.norm2" for i in range(n + 1, 4)] + ["norm"],
    )


def deit_underflow(s: State, n: int) -> None:
    s[f"vs.{n}.v.weight"] *= 2.0**-26
    s[f"vs.{n}.v.bias"] *= 2.0**-26
    s[f"projs.{n}.weight"] *= 2.0**18


def deit_norm(s: State, n: int) -> None:
    s[f"blocks.{n}.norm2.weight"] *= 2.0**17
    s[f"blocks.{n}.norm2.bias"] *= 2.0**17
    s[f"blocks.{n}.mlp.fc1.weight"] *= 2.0**-17


def deit_weight(s: State, n: int) -> None:
    s[f"blocks.{n}.mlp.fc2.weight"][0] *= 2.0**22


def deit_tie(s: State, n: int) -> None:
    """A key bias so large that FP16 leaves little of what the keys differ by: the cut falls elsewhere. Folding drops it."""
    s[f"qks.{n}.qk.bias"][len(s[f"qks.{n}.qk.bias"]) // 2 :] += 2.0**9


def massive(s: State, bias: str, norms: list[str]) -> None:
    """Two channels of a hundred thousand, as DINOv2's registers have; the norms after them look past them."""
    size, width = 1e5, len(s[bias])
    s[bias][3] += size
    s[bias][7] -= size
    for norm in norms:
        s[f"{norm}.weight"] *= size * (2 / width) ** 0.5 / 8
        s[f"{norm}.weight"][[3, 7]] = 0


# timm: blocks.N.attn.qkv, attn.proj, ls1.gamma, norm1, mlp.fc1.


def timm_mlp(s: State, n: int) -> None:
    s[f"blocks.{n}.mlp.fc1.weight"] *= 2.0**16
    s[f"blocks.{n}.mlp.fc2.weight"] *= 2.0**-16


def timm_logits(s: State, n: int) -> None:
    s[f"blocks.{n}.attn.qkv.weight"][:128] *= 2.0**7


def timm_value(s: State, n: int) -> None:
    s[f"blocks.{n}.attn.qkv.weight"][128:] *= 2.0**17
    s[f"blocks.{n}.attn.qkv.bias"][128:] *= 2.0**17
    s[f"blocks.{n}.attn.proj.weight"] *= 2.0**-17


def timm_query(s: State, n: int) -> None:
    for part in ("weight", "bias"):
        s[f"blocks.{n}.attn.qkv.{part}"][:64] *= 2.0**20
        s[f"blocks.{n}.attn.qkv.{part}"][64:128] *= 2.0**-20


def timm_residual(s: State, n: int) -> None:
    later = [f"blocks.{i}.norm{k}" for i in range(n + 1, 4) for k in (1, 2)] + ["norm"]
    s[f"blocks.{n}.ls2.gamma"][[3, 7]] = 1
    massive(s, f"blocks.{n}.mlp.fc2.bias", later)


def timm_underflow(s: State, n: int) -> None:
    s[f"blocks.{n}.attn.qkv.weight"][128:] *= 2.0**-26
    s[f"blocks.{n}.attn.qkv.bias"][128:] *= 2.0**-26
    s[f"blocks.{n}.attn.proj.weight"] *= 2.0**14
    s[f"blocks.{n}.ls1.gamma"] *= 2.0**12


def timm_norm(s: State, n: int) -> None:
    s[f"blocks.{n}.norm2.weight"] *= 2.0**17
    s[f"blocks.{n}.norm2.bias"] *= 2.0**17
    s[f"blocks.{n}.mlp.fc1.weight"] *= 2.0**-17


def timm_tie(s: State, n: int) -> None:
    s[f"blocks.{n}.attn.qkv.bias"][64:128] += 2.0**9


def timm_scale(s: State, n: int) -> None:
    """A LayerScale so large that fc2, which it is folded into, leaves FP16."""
    s[f"blocks.{n}.ls2.gamma"] *= 2.0**19


# Evo-LeViT: block n is entry block_numbers[...] of `blocks`.


def _entry(n: int) -> int:
    names = block_numbers(LEVIT.structure)
    return next(i for i, name in names.items() if name == f"blocks.{n}")


def levit_mlp(s: State, n: int) -> None:
    s[f"blocks.{_entry(n)}.m2.m.0.bn.weight"] *= 2.0**17
    s[f"blocks.{_entry(n)}.m2.m.2.bn.weight"] *= 2.0**-17


def levit_logits(s: State, n: int) -> None:
    s[f"blocks.{_entry(n)}.m1.m.qkv.bn.weight"] *= 2.0**9


def levit_query(s: State, n: int) -> None:
    heads, size = LEVIT.structure.num_heads[n // 2], LEVIT.structure.key_dim
    for part in ("weight", "bias"):
        rows = s[f"blocks.{_entry(n)}.m1.m.qkv.bn.{part}"].view(heads, -1)
        rows[:, :size] *= 2.0**20
        rows[:, size : 2 * size] *= 2.0**-20


def levit_fold(s: State, n: int) -> None:
    """A BatchNorm whose folded scale leaves FP16: a variance next to nothing."""
    s[f"blocks.{_entry(n)}.m2.m.0.bn.running_var"][:] = 0
    s[f"blocks.{_entry(n)}.m2.m.0.bn.weight"] *= 2.0**13
    s[f"blocks.{_entry(n)}.m2.m.2.bn.weight"] *= 2.0**-18


def levit_residual(s: State, n: int) -> None:
    s[f"blocks.{_entry(n)}.m2.m.2.bn.bias"][3] += 1e5


def levit_underflow(s: State, n: int) -> None:
    s[f"blocks.{_entry(n)}.m1.m.qkv.bn.weight"] *= 2.0**-28
    s[f"blocks.{_entry(n)}.m1.m.proj.1.bn.weight"] *= 2.0**15


def faults() -> Iterator[Fault]:
    """The whole set."""
    for n in (0, 1, 2):
        yield Fault("mlp", "deit", n, deit_mlp)
        yield Fault("logits", "deit", n, deit_logits)
        yield Fault("value", "deit", n, deit_value)
        yield Fault("query", "deit", n, deit_query)
        yield Fault("residual", "deit", n, deit_residual)
        yield Fault("norm", "deit", n, deit_norm, fold=False)
        yield Fault("weight", "deit", n, deit_weight)
        yield Fault("underflow", "deit", n, deit_underflow)
    yield Fault("tie", "deit", 0, deit_tie, fold=False)
    for n in (0, 1, 2):
        yield Fault("mlp", "timm", n, timm_mlp)
        yield Fault("logits", "timm", n, timm_logits)
        yield Fault("value", "timm", n, timm_value)
        yield Fault("query", "timm", n, timm_query)
        yield Fault("residual", "timm", n, timm_residual)
        yield Fault("norm", "timm", n, timm_norm, fold=False)
        yield Fault("scale", "timm", n, timm_scale)
        yield Fault("underflow", "timm", n, timm_underflow)
    yield Fault("tie", "timm", 0, timm_tie, fold=False)
    for n in (0, 1, 2):
        yield Fault("mlp", "levit", n, levit_mlp)
        if (
            n == 1
        ):  # block 2 holds in FP16, and block 0 is NaN in FP32 already: every dropped token's score becomes zero
            yield Fault("logits", "levit", n, levit_logits)
        yield Fault("query", "levit", n, levit_query)
        yield Fault("fold", "levit", n, levit_fold)
        yield Fault("residual", "levit", n, levit_residual)


ALL: tuple[Any, ...] = tuple(faults())
