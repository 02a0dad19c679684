"""Checks of tensors that every family needs: present, of the right shape, floating point, finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_tensors", "quoted", "shape_of", "some"]


def quoted(name: object) -> str:
    """Quote a name that a file holds, cut and without characters that a terminal would act on."""
    text = str(name)[:80]
    return f"`{text if text.isprintable() else ascii(text)[1:-1]}`"


def some(names: Any, count: int = 4) -> str:
    """Return the first few names, and how many more there are."""
    listed = [quoted(name) for name in names]
    if not listed:
        return "nothing"
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more


def shape_of(
    state: dict[str, Tensor], key: str, expected: tuple[int | None, ...], model: str, where: str
) -> tuple[int, ...]:
    """Return the shape of a tensor that must be there; None matches any size from 1."""
    if key not in state:
        raise CheckpointError(
            f"{where}: `{key}` is missing, which {model} has; found are {some(state)}. Save the whole state dict of that model."
        )
    shape = tuple(state[key].shape)
    if len(shape) != len(expected) or any(a != b if b is not None else a < 1 for a, b in zip(shape, expected)):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise CheckpointError(f"{where}: `{key}` has shape {list(shape)}; expected [{wanted}].")
    return shape


def check_tensors(
    state: dict[str, Tensor],
    shapes: dict[str, tuple[int, ...]],
    model: str,
    where: str,
    fix: str = "Save the state dict of the authors' model class, unchanged",
) -> dict[str, Tensor]:
    """Return copies in float32 of exactly the tensors that a model needs.

    Args:
        state: Tensors by name.
        shapes: Name -> shape of every tensor of the model.
        model: What it looks like, for messages.
        where: The checkpoint, for messages.
        fix: What to do about tensors that are missing or unexpected.

    Raises:
        CheckpointError: Missing or unexpected keys, a wrong shape, integer or complex tensors, NaN or Inf.
    """
    import torch

    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes]
    if missing or unexpected:
        parts = [f"missing: {some(missing)}"] * bool(missing) + [f"unexpected: {some(unexpected)}"] * bool(unexpected)
        raise CheckpointError(
            f"{where} looks like {model}, but its tensors are not those of one; {'; '.join(parts)}. {fix}."
        )
    result: dict[str, Tensor] = {}
    broken: list[str] = []
    for key, shape in shapes.items():
        tensor = state[key]
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{where}: `{key}` has shape {list(tensor.shape)}; expected {list(shape)}.")
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: `{key}` holds {str(tensor.dtype).removeprefix('torch.')} values; weights are floating "
                "point. Save the float weights from before quantisation."
            )
        result[key] = tensor.to(torch.float32, copy=True).contiguous()  # a copy: the file is only mapped
        if not bool(torch.isfinite(result[key]).all()):
            broken.append(key)
    if broken:
        raise CheckpointError(
            f"{where}: NaN or Inf in {some(broken)}; training diverged or the file is damaged. Take an earlier "
            "checkpoint."
        )
    return result
