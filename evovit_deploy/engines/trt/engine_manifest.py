"""The manifest beside a plan, `X.engine.json`, and what a plan says about itself: both are read without TensorRT or a GPU.

The plan is a plain file that any other tool loads; everything that a service needs to trust it is in the manifest.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EngineError, InputError, ModelFileError
from ...manifest import check, check_schema
from ...manifest.beside import is_described, manifest_path
from ...storage.files import sha256
from ...storage.json_shape import Between, misfit
from ...storage.missing import no_such_file
from ..registry import Sealed
from .api import rtx_runs_on
from .options import BuildOptions

if TYPE_CHECKING:
    from .api import Api, Gpu

__all__ = [
    "SCHEMA",
    "PlanHeader",
    "check_environment",
    "check_file",
    "describe_engine",
    "described",
    "is_ours",
    "manifest_path",
    "plan_key",
    "read_header",
    "read_manifest",
    "rebuild_command",
    "sealed",
]

SCHEMA = 1
_SIZE = Between(1, 1 << 20)
_COUNT = Between(0, 1 << 62)
_DIMENSION = (Between(1, 1 << 30), None)
_SHAPE = {
    "name": str,
    "flavour": frozenset({"tensorrt", "tensorrt-rtx"}),
    "version": str,
    "plan": {"sha256": str, "bytes": _COUNT},
    "onnx": {"file": str, "sha256?": str},
    "gpu": (None, {"name": str}),
    "compute_capabilities": [str],
    "precision": str,
    "batch": {"min": _SIZE, "opt": _SIZE, "max": _SIZE},
    "io": {
        "input": {"name": str, "dtype": frozenset({"float32", "uint8"}), "shape": [_DIMENSION]},
        "outputs": {str: [_DIMENSION]},
    },
    "num_classes": (Between(0, 1 << 20), None),
    "model": (None, {str: object}),
    "options": {"compute_capabilities": [str]},
    "status?": (str, None),
    "report?": {
        "kernels": _COUNT,
        "attention": {"fused": _COUNT, "total": _COUNT, "unfused": [str]},
        "selection": {"kernels": [str], "only": _COUNT},
        "precisions": {str: _COUNT},
        "types": {str: _COUNT},
        "weights_bytes": (_COUNT, None),
        "activation_bytes": (_COUNT, None),
    },
}
# Verified on plans of TensorRT-RTX 1.7 (with the file's size at byte 16); trtexec reads those of full TensorRT the same way.
_TAGS = {b"vtrt": "tensorrt-rtx", b"ftrt": "tensorrt"}
_HEADER = struct.Struct("<4sIQq4B")


@dataclass(frozen=True)
class PlanHeader:
    """The first bytes of a plan: which flavour and version wrote it, and how long it is (None where it does not say)."""

    flavour: str
    version: str
    bytes: int | None


def is_ours(path: Path) -> bool:
    """Return whether a file is the plan that the manifest beside it describes."""
    return is_described(path, "plan")


def read_header(path: Path) -> PlanHeader:
    """Read the header of a plan.

    Raises:
        ModelFileError: No such file, not a plan, or a plan that was cut short.
    """
    build = f"Build it again: evovit build MODEL.onnx -o {path}"
    try:
        with open(path, "rb") as stream:
            data = stream.read(_HEADER.size)
        size = path.stat().st_size
    except FileNotFoundError:
        raise no_such_file(path, ModelFileError, build) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}. {build}") from error
    if len(data) < _HEADER.size or data[:4] not in _TAGS:
        raise ModelFileError(f"{path} ({size} bytes) is not a TensorRT engine, or its beginning is damaged. {build}")
    tag, _, _, length, *version = _HEADER.unpack(data)
    flavour = _TAGS[tag]
    if flavour == "tensorrt-rtx" and length != size:
        raise ModelFileError(f"{path} should have {length} bytes and has {size}: it was cut short or damaged. {build}")
    return PlanHeader(flavour, ".".join(map(str, version)), length if flavour == "tensorrt-rtx" else None)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest beside a plan, or None when there is no file.

    Raises:
        EngineError: It was written by a newer version of this package.
        ModelFileError: There is one, and it is not a manifest.
    """
    beside = manifest_path(path)
    fix = f"Delete it to open the engine without, or build again: evovit build MODEL.onnx -o {path}"
    try:
        document = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{beside} is not a readable manifest: {error}. {fix}") from error
    check_schema(document, SCHEMA, str(beside))
    if not isinstance(document, dict) or document.get("kind") != "engine" or document.get("schema") != SCHEMA:
        raise ModelFileError(f"{beside} is not a manifest of schema {SCHEMA} of an engine. {fix}")
    if problem := misfit(document, _SHAPE):
        raise ModelFileError(f"{beside} is damaged: {problem}. {fix}")
    batch = document["batch"]
    if not batch["min"] <= batch["opt"] <= batch["max"]:
        raise ModelFileError(f"{beside} is damaged: batch is {batch}, not ascending. {fix}")
    try:
        rebuild_command(path, document)  # every refusal holds it, so it has to work
    except (InputError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ModelFileError(f"{beside} is damaged: options: {type(error).__name__}: {error}. {fix}") from error
    if document["model"] is not None:
        check(document["model"], str(beside))
    return document


def rebuild_command(path: Path, document: dict[str, Any] | None, target: str | None = None) -> str:
    """Return the `evovit build` command that makes this engine again, for ``target`` if given."""
    if document is None:
        return f"evovit build MODEL.onnx -o {path}" + (f" --target {target}" if target else "")
    values = {**document["options"], "compute_capabilities": tuple(document["options"]["compute_capabilities"])}
    if target and target != document["flavour"]:  # options of one flavour mean nothing to the other
        keep = ("batch", "min_batch", "opt_batch", "max_batch", "precision", "refit", "strip_plan")
        values = {name: values[name] for name in keep if name in values}
    options = BuildOptions(**{**values, "target": target or document["flavour"]})
    return options.command(str(document["onnx"]["file"]), str(path))


def check_file(path: Path, document: dict[str, Any] | None) -> PlanHeader:
    """Check that a plan is whole and the one that its manifest describes; needs no GPU.

    Raises:
        ModelFileError: No such file; not a plan, or cut short, and there is no manifest.
        EngineError: The plan is not the one described. The message holds the command that builds it.
    """
    if document is None:
        return read_header(path)
    fix = f"Build it again: {rebuild_command(path, document)}"
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise no_such_file(path, ModelFileError, fix) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}. {fix}") from error
    if size != document["plan"]["bytes"]:
        raise EngineError(f"{path} has {size} bytes, and its manifest describes {document['plan']['bytes']}. {fix}")
    if sha256(path) != document["plan"]["sha256"]:
        raise EngineError(f"{path} is not the engine that its manifest describes: the SHA-256 differs. {fix}")
    header = read_header(path)
    if header.flavour != document["flavour"]:
        raise EngineError(
            f"{path} is an engine of {header.flavour}, and its manifest says {document['flavour']}. {fix}"
        )
    return header


def check_environment(
    path: Path, document: dict[str, Any] | None, header: PlanHeader, api: Api, gpu: Gpu | None
) -> None:
    """Check that this machine can run a plan, before TensorRT is given it.

    Raises:
        EngineError: Another flavour or version, no GPU, or a GPU that the plan was not built for.
    """
    fix = f"Build it on this machine: {rebuild_command(path, document, api.flavour)}"
    if header.flavour != api.flavour:
        raise EngineError(f"{path} was built with {header.flavour}, and {api.title} is to run it. {fix}")
    options = document["options"] if document else {}
    built = document["version"] if document else header.version
    if not _version_fits(built, api.version, bool(options.get("version_compatible"))):
        raise EngineError(f"{path} was built with version {built}, and this is {api.title}. {fix}")
    if gpu is None:
        raise EngineError(
            f"{path} needs an NVIDIA GPU with a working driver, and none was found. Run it on a GPU machine (see "
            f"`evovit doctor`), or run the ONNX file it was built from, which needs none."
        )
    if document is None:
        return
    capabilities = document["compute_capabilities"]
    if api.rtx:
        if not rtx_runs_on(gpu.capability):
            raise EngineError(
                f"{api.title} does not run on {gpu.name} (compute capability {gpu.capability}). Build an engine there with "
                f"--target tensorrt or inductor, or run the ONNX file with CUDA."
            )
        wanted = capabilities or ["8.0 and newer"]
        fits = gpu.capability in capabilities if capabilities else _numbers(gpu.capability) >= (8, 0)
        if not fits:
            changed = {**document, "options": {**options, "compute_capabilities": [gpu.capability]}}
            raise EngineError(
                f"{path} was built for compute capability {', '.join(wanted)}, and {gpu.name} is {gpu.capability}. Build it "
                f"for this GPU: {rebuild_command(path, changed, api.flavour)}"
            )
        return
    level, there = options.get("hardware_compatibility", "none"), capabilities[0] if capabilities else None
    fits = _numbers(gpu.capability) >= (8, 0) if level == "ampere+" else gpu.capability == there
    if there and not fits:
        was = (document["gpu"] or {}).get("name", "another GPU")
        raise EngineError(f"{path} was built on {was} ({there}), and this is {gpu.name} ({gpu.capability}). {fix}")


def describe_engine(path: str | Path) -> dict[str, Any]:
    """Return a JSON-ready description of a plan, from its manifest and its header; needs neither TensorRT nor a GPU.

    Raises:
        ModelFileError, EngineError: See :func:`check_file`.
    """
    path = Path(path)
    document = read_manifest(path)
    header = check_file(path, document)
    notes = [] if document else ["no manifest beside it: only what the engine itself says is known"]
    return {
        "kind": "engine",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "flavour": header.flavour,
        "version": header.version,
        "manifest": document,
        "notes": notes,
    }


def described(path: Path) -> tuple[PlanHeader, dict[str, Any]]:
    """Return the header and the manifest of a plan that has to have one; needs neither TensorRT nor a GPU.

    Raises:
        ModelFileError, EngineError: See :func:`read_manifest` and :func:`check_file`. A plan without a manifest is refused too.
    """
    document = read_manifest(path)
    header = check_file(path, document)
    if document is None:
        raise ModelFileError(
            f"{path} has no manifest beside it ({manifest_path(path).name}), so its inputs and outputs are not known; build it "
            "again with evovit."
        )
    return header, document


def sealed(path: Path) -> Sealed:
    """Check a plan against its manifest, for packages; see :func:`described`."""
    header, document = described(path)
    most, classes = document["batch"]["max"], document["num_classes"] or 0
    return Sealed(manifest_path(path), header.flavour, document["version"], most, classes, gpu_only=True)


def plan_key(path: Path) -> str:
    """Return a short key of a plan, for caches."""
    return sha256(path)[:16]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _version_fits(built: str, here: str, compatible: bool) -> bool:
    a, b = _numbers(built), _numbers(here)
    if compatible:
        return a[:1] == b[:1] and b >= a
    length = min(len(a), len(b))
    return a[:length] == b[:length]
