"""The plan report: which kernels an engine runs, read from the finished plan and not from what was asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..errors import ModelFileError, PlanError
from .onnx_facts import OnnxFacts

__all__ = ["Kernel", "PlanReport", "check_plan", "make_report", "parse_inspector", "parse_log"]

_FUSED = re.compile(r"_gemm_mha|fmha|_mha_|^mha", re.IGNORECASE)
_TYPES = {
    "half": "fp16", "fp16": "fp16", "float16": "fp16", "bfloat16": "bf16", "bf16": "bf16", "float": "fp32", "fp32": "fp32",
    "float32": "fp32", "fp8": "fp8", "int8": "int8", "uint8": "uint8", "int32": "int32", "int64": "int64", "bool": "bool",
}  # fmt: skip
_FLOATS = ("fp16", "bf16", "fp32", "fp8")


@dataclass(frozen=True)
class Kernel:
    """One line of a plan.

    Attributes:
        name: As TensorRT calls it.
        type: Layer type, such as ``gemm``, ``kgen``, ``runtime_fusion``.
        inputs, outputs: Types of the tensors read (constants too) and written, such as ``fp16``.
        onnx: Names of the ONNX nodes it came from; empty where the plan does not say.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    onnx: tuple[str, ...]

    @property
    def precision(self) -> str:
        """Floating-point types written, such as ``fp16`` or ``fp16+fp32``; ``integer`` or ``none`` where there are none."""
        floats = sorted({kind for kind in self.outputs if kind in _FLOATS})
        return "+".join(floats) or ("integer" if self.outputs else "none")

    @property
    def fused_attention(self) -> bool:
        """Whether this is a whole attention in one kernel."""
        return bool(_FUSED.search(self.name))


@dataclass(frozen=True)
class PlanReport:
    """What is in a plan.

    Attributes:
        kernels: Lines of the plan; a host-side shape call counts, as it does in other tools.
        fused, attentions: Attentions that became one kernel, and all there are in the ONNX graph.
        unfused: ONNX names of the softmax of those that did not.
        precisions: :attr:`Kernel.precision` -> kernels.
        types: Layer type -> kernels.
        selection: Names of the kernels with any token selection in them.
        selection_only: How many of those do nothing else.
        weights_bytes, activation_bytes: Memory, or None where it is not known.
        layers: The kernels themselves.
    """

    kernels: int
    fused: int
    attentions: int
    unfused: tuple[str, ...]
    precisions: dict[str, int]
    types: dict[str, int]
    selection: tuple[str, ...]
    selection_only: int
    weights_bytes: int | None
    activation_bytes: int | None
    layers: tuple[Kernel, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; one short record per kernel."""
        return {
            "kernels": self.kernels,
            "attention": {"fused": self.fused, "total": self.attentions, "unfused": list(self.unfused)},
            "precisions": self.precisions,
            "types": self.types,
            "selection": {"kernels": list(self.selection), "only": self.selection_only},
            "weights_bytes": self.weights_bytes,
            "activation_bytes": self.activation_bytes,
            "layers": [
                {"name": k.name, "type": k.type, "precision": k.precision, "onnx": " ".join(k.onnx)}
                for k in self.layers
            ],
        }


def parse_log(text: str) -> tuple[Kernel, ...]:
    """Return the kernels from the plan that a builder logs under ``ProfilingVerbosity.DETAILED``, one per line."""
    kernels = []
    for line in text.splitlines():
        found = re.match(r"\s*Name: (.*?), LayerType: (\w+)", line)
        if not found:
            continue
        before, _, after = line.partition(", Outputs: [")
        outputs, _, metadata = after.partition(", Metadata:")
        kernels.append(Kernel(found[1], found[2], _types_in(before), _types_in(outputs), _onnx_nodes(metadata or line)))
    return tuple(kernels)


def parse_inspector(document: str) -> tuple[Kernel, ...]:
    """Return the kernels from ``EngineInspector.get_engine_information(LayerInformationFormat.JSON)``, TensorRT 10 and 11.

    Raises:
        ModelFileError: Not such a document, or one that only lists names (an engine built without detailed verbosity).
    """
    try:
        layers = json.loads(document)["Layers"]
        if any(not isinstance(layer, dict) for layer in layers):
            raise ModelFileError(
                "the engine only gives the names of its layers; build it with profilingVerbosity=detailed to see more."
            )
        return tuple(
            Kernel(
                str(layer["Name"]),
                str(layer.get("LayerType", "unknown")),
                tuple(_tensor_type(t) for part in ("Inputs", "Constants") for t in layer.get(part) or []),
                tuple(_tensor_type(t) for t in layer.get("Outputs") or []),
                _onnx_nodes(str(layer.get("Metadata", ""))),
            )
            for layer in layers
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"the engine inspector's answer is not understood: {error!r}.") from error


def make_report(
    kernels: tuple[Kernel, ...], facts: OnnxFacts, *, weights_bytes: int | None, activation_bytes: int | None
) -> PlanReport:
    """Hold a plan against the ONNX file it was built from."""
    fused_kernels = [kernel for kernel in kernels if kernel.fused_attention]
    inside = {name for kernel in fused_kernels for name in kernel.onnx}
    if any(kernel.onnx for kernel in kernels):
        unfused = tuple(name for name in facts.attentions if name not in inside)
        fused = len(facts.attentions) - len(unfused)
    else:  # the plan does not say where its kernels came from
        fused, unfused = min(len(fused_kernels), len(facts.attentions)), ()
    selecting = [kernel for kernel in kernels if facts.selection & set(kernel.onnx)]
    return PlanReport(
        kernels=len(kernels),
        fused=fused,
        attentions=len(facts.attentions),
        unfused=unfused,
        precisions=dict(Counter(kernel.precision for kernel in kernels).most_common()),
        types=dict(Counter(kernel.type for kernel in kernels).most_common()),
        selection=tuple(kernel.name for kernel in selecting),
        selection_only=sum(set(kernel.onnx) <= facts.selection for kernel in selecting),
        weights_bytes=weights_bytes,
        activation_bytes=activation_bytes,
        layers=kernels,
    )


def check_plan(
    report: PlanReport, facts: OnnxFacts, *, require_fused_attention: bool = False, max_kernels: int | None = None
) -> None:
    """Refuse a plan that is not what was asked for.

    Raises:
        PlanError: A product that the ONNX file does in half precision runs in another one; an attention that is not fused;
            too many kernels. The last two only when asked for.
    """
    for kernel in report.layers:
        for name in kernel.onnx:
            wanted = facts.weighted.get(name)
            if wanted in ("fp16", "bf16") and wanted not in (*kernel.inputs, *kernel.outputs):
                found = kernel.precision
                raise PlanError(
                    f"{facts.path.name} does {name} in {wanted}, but the plan runs it in {found} (kernel {kernel.name}). "
                    f"Nothing was written. Try another TensorRT version, or export with --precision fp32."
                )
    floats = {kind for kernel in report.layers for kind in (*kernel.inputs, *kernel.outputs)}
    if report.layers and facts.precision in ("fp16", "bf16") and facts.precision not in floats:
        raise PlanError(f"{facts.path.name} is {facts.precision}, but no kernel of the plan is. Nothing was written.")
    if require_fused_attention and report.fused < report.attentions:
        where = f": not in {', '.join(report.unfused)}" if report.unfused else ""
        hint = "FP32 attention is never fused; export with --precision fp16. " if facts.precision == "fp32" else ""
        raise PlanError(
            f"attention is fused in {report.fused} of {report.attentions} places{where}. {hint}Nothing was written, because "
            f"of --require-fused-attention."
        )
    if max_kernels is not None and report.kernels > max_kernels:
        raise PlanError(
            f"the plan has {report.kernels} kernels, more than --max-kernels {max_kernels}. Nothing was written."
        )


def _types_in(text: str) -> tuple[str, ...]:
    return tuple(_TYPES.get(name.lower(), name.lower()) for name in re.findall(r"Datatype: (\w+)", text))


def _tensor_type(tensor: dict[str, Any]) -> str:
    """TensorRT 11 says ``Datatype``; 10 says ``Format/Datatype``, such as ``Row major linear FP16 format`` or ``Half``."""
    text = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Format") or "")
    for word in re.findall(r"\w+", text):
        if word.lower() in _TYPES:
            return _TYPES[word.lower()]
    return "unknown"


def _onnx_nodes(metadata: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[ONNX Layer: ([^\]]*)\]", metadata))
