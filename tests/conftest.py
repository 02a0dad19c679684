"""Fixtures shared by all tests, and what makes workers beside each other no slower than they have to be."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[1].parent / "shared" / "reference"

# Before torch is imported, here or in a process that a test starts: as many threads as there are cores for a worker.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
# An export makes millions of objects that live long; looking through them every 700 is a tenth of its time.
gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with outputs of the authors' model classes; a test that needs it is skipped where it is missing."""
    if not REFERENCE.is_dir():
        pytest.skip("the reference data (../shared/reference) is not beside this checkout")
    return REFERENCE


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def shared_exports(session_folder: Path) -> Iterator[None]:
    """Let equal modules be exported once: :mod:`tests.exports`."""
    from evovit_deploy.export import onnx

    from .exports import SharedExports

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "to_onnx", SharedExports(session_folder / "exports", onnx.to_onnx))
        yield
