"""The manifest beside a package, `X.pt2.json`, checked before the package is opened: a package is native code.

Whoever opens one runs what is in it. So it is opened only if the manifest has its SHA-256, and only on a machine that it was
compiled for: another PyTorch, processor or GPU could crash on it or, worse, not crash.
"""

from __future__ import annotations

import json
import platform
import shlex
from pathlib import Path
from typing import Any

from ...classes.output_names import output_of
from ...errors import EngineError, InputError, ModelFileError
from ...machine.facts import cpu_features, cpu_model
from ...manifest import check, check_schema
from ...manifest.beside import is_described, manifest_path
from ...manifest.spec import ModelSpec
from ...storage.files import sha256
from ...storage.json_shape import Between, misfit
from ...storage.missing import no_such_file
from ..registry import Sealed
from .options import Batches

__all__ = [
    "SCHEMA",
    "batches_of",
    "check_file",
    "check_machine",
    "describe_package",
    "is_ours",
    "machine",
    "manifest_path",
    "read_manifest",
    "rebuild_command",
    "sealed",
]

SCHEMA = 1
_SIZE = Between(1, 1 << 20)
_SHAPE = {
    "kind": frozenset({"inductor"}),
    "name": str,
    "torch": str,
    "package": {"sha256": str, "bytes": Between(0, 1 << 62)},
    "machine": {
        "device": frozenset({"cpu", "cuda"}),
        "system": str,
        "processor": str,
        "cpu": (str, None),
        "cpu_features": ([str], None),
        "gpu": (str, None),
        "compute_capability": (str, None),
        "cuda": (str, None),
    },
    "batch": {"min": _SIZE, "max": _SIZE, "sizes": [_SIZE]},
    "model": {str: object},
}
NATIVE = (
    "native code: whoever opens it runs what is in it; evovit opens it only with its manifest, and only if it has the SHA-256 "
    "that the manifest says"
)


def is_ours(path: Path) -> bool:
    """Return whether a file is the package that the manifest beside it describes."""
    return is_described(path, "package")


def machine(device: str) -> dict[str, Any]:
    """Return what decides whether code that is compiled here for ``device`` runs elsewhere."""
    import torch

    facts: dict[str, Any] = {
        "device": device,
        "system": platform.system(),
        "processor": platform.machine(),
        "cpu": cpu_model(),
        "cpu_features": None if (features := cpu_features()) is None else list(features),
        "gpu": None,
        "compute_capability": None,
        "cuda": None,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"], facts["cuda"] = properties.name, torch.version.cuda
        facts["compute_capability"] = f"{properties.major}.{properties.minor}"
    return facts


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check the manifest of a package.

    Raises:
        EngineError: There is none, it is damaged, or a newer evovit-deploy wrote it. The message holds the command that builds
            the package again.
    """
    beside = manifest_path(path)
    fix = f"Build it again: {rebuild_command(path, None)}"
    try:
        document = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(
            f"{path} has no manifest beside it ({beside.name}). A package is native code, and is opened only with its manifest. "
            f"{fix}"
        ) from None
    except OSError as error:
        raise EngineError(f"cannot read {beside}: {error.strerror or error}. {fix}") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{beside} is not the manifest of a package: {error}. {fix}") from error
    check_schema(document, SCHEMA, str(beside))
    problem = "it is no object" if not isinstance(document, dict) else misfit(document, {"schema": int, **_SHAPE})
    if problem is None:
        try:
            check(document["model"], str(beside))
            batches_of(document)
        except (ModelFileError, InputError) as error:
            problem = str(error)
    if problem is not None:
        raise EngineError(f"{beside} is damaged: {problem.removesuffix('.')}. {fix}")
    return document


def batches_of(document: dict[str, Any]) -> Batches:
    """Return the batch sizes that a manifest names.

    Raises:
        InputError: They contradict each other.
    """
    batch = document["batch"]
    return Batches(batch["min"], batch["max"], tuple(batch["sizes"]))


def rebuild_command(path: Path, document: dict[str, Any] | None, device: str | None = None) -> str:
    """Return the `evovit export` command that makes this package again, for ``device`` if given."""
    words = ["evovit", "export", "CKPT", "--format", "engine", "--target", "inductor", "-o", str(path)]
    if document is not None:
        model, batches = document["model"], batches_of(document)
        words += ["--device", device or document["machine"]["device"], "--precision", model["precision"]]
        words += ["--input", model["input"]] if model["input"] != "float32" else []
        outputs = list(dict.fromkeys(map(output_of, model["outputs"])))
        words += ["--outputs", ",".join(outputs)] if outputs != ["logits"] else []
        words += ["--selection", model["selection"]] if model["selection"] else []
        words += [] if model["folded"] else ["--no-fold"]
        if batches.sizes:
            words += ["--batch", ",".join(map(str, batches.sizes))]
        else:
            words += ["--min-batch", str(batches.min), "--max-batch", str(batches.max)]
    return shlex.join(words)


def check_file(path: Path, document: dict[str, Any]) -> None:
    """Check that a package is the one that its manifest describes.

    Raises:
        ModelFileError: No such file.
        EngineError: It is another one. The message holds the command that builds it.
    """
    fix = f"Build it again: {rebuild_command(path, document)}"
    try:
        size = path.stat().st_size
        digest = sha256(path)
    except FileNotFoundError:
        raise no_such_file(path, ModelFileError, fix) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}. {fix}") from error
    expected = document["package"]
    if size != expected["bytes"]:
        raise EngineError(f"{path} has {size} bytes, and its manifest describes {expected['bytes']}. {fix}")
    if digest != expected["sha256"]:
        raise EngineError(f"{path} is not the package that its manifest describes: the SHA-256 differs. {fix}")


def check_machine(path: Path, document: dict[str, Any]) -> None:
    """Check that this machine can run a package, before it is opened.

    Raises:
        EngineError: Another PyTorch, system, processor or GPU than it was compiled for.
    """
    import torch

    there = document["machine"]
    fix = f"Build it on this machine: {rebuild_command(path, document)}"
    if _release(document["torch"]) != _release(torch.__version__):
        raise EngineError(
            f"{path} was compiled with PyTorch {document['torch']}, and this is {torch.__version__}. {fix}"
        )
    if there["device"] == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"{path} was compiled for {there['gpu'] or 'a GPU'}, and PyTorch cannot use a GPU here. Run it on such a machine "
            f"(see `evovit doctor`), or compile for the CPU: {rebuild_command(path, document, 'cpu')}"
        )
    here = machine(there["device"])
    for what in ("system", "processor", "compute_capability", "cuda"):
        if there[what] != here[what]:
            name = {"compute_capability": "compute capability", "cuda": "CUDA"}.get(what, what)
            raise EngineError(f"{path} was compiled for {name} {there[what]}, and this is {here[what]}. {fix}")
    if there["cpu_features"] is None or here["cpu_features"] is None:
        if there["cpu"] != here["cpu"]:
            raise EngineError(f"{path} was compiled for {there['cpu']}, and this is {here['cpu']}. {fix}")
    elif missing := sorted(set(there["cpu_features"]) - set(here["cpu_features"])):
        raise EngineError(
            f"{path} was compiled for {there['cpu']}, and this processor ({here['cpu']}) has no {', '.join(missing)}. {fix}"
        )


def describe_package(path: str | Path) -> dict[str, Any]:
    """Return a JSON-ready description of a package, from its manifest; the package itself is not opened.

    Raises:
        ModelFileError, EngineError: See :func:`read_manifest` and :func:`check_file`.
    """
    path = Path(path)
    document = read_manifest(path)
    check_file(path, document)
    model, there = document["model"], document["machine"]
    compiled_for = f"{there['system']} {there['processor']}, {there['cpu']}"
    if there["device"] == "cuda":
        compiled_for += f", {there['gpu']} (compute capability {there['compute_capability']}), CUDA {there['cuda']}"
    return {
        "kind": "inductor",
        "path": str(path),
        "model": document["name"],
        "weights_from": model["weights"]["source"],
        "precision": model["precision"],
        "input": model["input"],
        "outputs": ", ".join(model["outputs"]),
        "batch": str(batches_of(document)),
        "device": there["device"],
        "compiled_for": compiled_for,
        "torch": document["torch"],
        "status": document.get("status"),
        "bytes": path.stat().st_size,
        "sha256": document["package"]["sha256"],
        "manifest": document,
        "notes": [NATIVE],
    }


def sealed(path: Path) -> Sealed:
    """Check a package against its manifest, for `evovit package`."""
    document = read_manifest(path)
    check_file(path, document)
    model = ModelSpec.from_manifest(document["model"], str(path))
    return Sealed(
        manifest_path(path),
        "inductor",
        _release(document["torch"]),
        document["batch"]["max"],
        model.num_classes,
        gpu_only=document["machine"]["device"] == "cuda",
    )


def _release(version: str) -> str:
    """``2.15.0`` of ``2.15.0+cu132``: builds of one release have the same interface."""
    return version.partition("+")[0]
