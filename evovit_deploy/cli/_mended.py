"""What was done to let a model run in FP16, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ._console import note, out, warn

__all__ = ["show_mended"]


def show_mended(manifest: dict[str, Any], path: Path) -> None:
    """What was done for FP16, and what it costs where that can be told without a GPU."""
    console, islands = out(), manifest["islands"]
    for name, power in manifest["scales"].items():
        console.print(
            f"scaled by 2^{-power}, exactly: {name} (its neighbours by the inverse)", markup=False, soft_wrap=True
        )
    if islands:
        console.print(f"{len(islands)} nodes in FP32: {', '.join(islands)}", markup=False, soft_wrap=True)
        attend = sorted({name.rpartition("/")[0] for name in islands if "/attend/" in name})
        if attend:
            console.print(
                f"TensorRT does not fuse these attentions any more: {', '.join(attend)}", markup=False, soft_wrap=True
            )
        cost = manifest["islands_cost"]
        console.print(
            f"ONNX Runtime on this CPU, batch {cost['batch']:.0f}: {cost['ms']:.3g} ms, {cost['ms_without']:.3g} ms without "
            "islands",
            soft_wrap=True,
        )
        if not _computes_in_half(path):
            warn("no node is left in half precision: this is an FP32 model. --precision fp32 exports it as one")
        note("`evovit build` counts the kernels of the plan, `evovit bench` the time")


def _computes_in_half(path: Path) -> bool:
    from ..export.islands import candidates
    from ..manifest.onnx_file import load_onnx

    return bool(candidates(load_onnx(path, external=True)))
