"""Fixtures shared by all tests, and what makes workers beside each other no slower than they have to be."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from . import exports, measuring

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits" / "evo_deit_digits.pth"
REFERENCE = Path(__file__).resolve().parents[1].parent / "shared" / "reference"

# Before torch is imported, here or in a process that a test starts. The models here are small: a second thread mostly waits for
# the first, and where workers share the cores it takes from the others what it waits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# 150 MB for each header, which PyTorch keeps in the temporary folder for good.
os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")
# What the processor says it can do the compiler can too: trying that out is a third of a first package. What a package calls its
# kernels from takes as long again to optimize; the kernels themselves are compiled as ever.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
# An export makes millions of objects that live long; looking through them every 700 is a tenth of its time.
gc.set_threshold(50_000, 20, 20)
# How long examples take says how busy the machine is.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--whole``: what takes minutes too."""
    parser.addoption("--whole", action="store_true", help="run the tests marked whole too, which take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip visibly what takes minutes."""
    if not config.getoption("--whole"):
        for item in items:
            if item.get_closest_marker("whole"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --whole"))


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with outputs of the authors' model classes; a test that needs it is skipped where it is missing."""
    if not REFERENCE.is_dir():
        pytest.skip("the reference data (../shared/reference) is not beside this checkout")
    return REFERENCE


@pytest.fixture
def tome_reference(reference: Path) -> Callable[..., Any]:
    """Load a reference of ToMe by name: (checkpoint that merges r tokens a block, arrays)."""
    import numpy as np
    import torch

    from evovit_deploy.checkpoint import Checkpoint
    from evovit_deploy.models.vit.tome_recipe import Merging
    from evovit_deploy.recipes import Recipe, Structure

    def load(name: str, r: tuple[float, ...], pool: Any) -> tuple[Checkpoint, dict[str, Any]]:
        if not (reference / f"{name}.npz").is_file():
            pytest.skip(f"{name}.npz is not among the reference data")
        structure = Structure(112, 16, 128, 6, 2, num_classes=10, pool=pool)
        recipe = Recipe(name, "tome_vit", structure, Merging((0,) * 6).with_r(r), baseline="vit_small_patch16_224")
        state = dict(torch.load(reference / "tome_micro.pth", weights_only=True))
        return Checkpoint(None, recipe, state, "test", "float32", None), dict(np.load(reference / f"{name}.npz"))

    return load


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="module", autouse=True)
def old_objects_are_not_looked_through() -> None:
    """Spare collections what was there before a file's tests: modules, their caches, what a session shares, all here to stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread_in_onnx_runtime() -> Iterator[None]:
    """Let sessions have one thread where a test does not say how many; a proof in FP16 takes a fifteenth of the CPU so."""
    import onnxruntime

    class OneThread(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", OneThread)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread_in_measurements() -> Iterator[None]:
    """Let commands that measure have one thread where a test does not say how many."""
    with pytest.MonkeyPatch.context() as patch:
        measuring.one_thread(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_exports(session_folder: Path) -> None:
    """Let equal modules be exported and compiled once, here and in the processes that ask for it."""
    os.environ[exports.FOLDER] = str(session_folder / "exports")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(session_folder / "torchinductor")
    exports.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what a session shares, also where files of tests that failed are kept."""
    if not hasattr(session.config, "workerinput"):
        base = session.config._tmp_path_factory._basetemp  # type: ignore[attr-defined]  # None if nothing was made
        for name in ("exports", "inductor", "serve", "torchinductor"):
            if base is not None:
                shutil.rmtree(base / name, ignore_errors=True)


@pytest.fixture
def weights_into_one_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models that differ in weights only be exported once."""
    from . import weights

    weights.install(monkeypatch.setattr)


@pytest.fixture(scope="session")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of timm's `test_vit` without a head, for images of 48 pixels."""
    import torch

    from evovit_deploy.models.vit.timm_names import create

    path = tmp_path_factory.mktemp("headless") / "headless.pth"
    torch.save(create("test_vit", 0, num_classes=0, img_size=48).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def features_model(headless: Path) -> Path:
    """Its features as ONNX: uint8 images, vectors and tokens."""
    from evovit_deploy import ExportOptions, export_onnx, load_checkpoint
    from evovit_deploy.models.options import ModelOptions

    outputs = ("embedding", "patch_tokens", "block_2", "kept")
    options = ExportOptions(ModelOptions(image_input="uint8", outputs=outputs), prove=False)
    return export_onnx(load_checkpoint(headless, timm="test_vit"), headless.with_name("features.onnx"), options).path


@pytest.fixture(scope="session")
def inductor_package(session_folder: Path) -> Path:
    """A small Evo-DeiT of four blocks as an inductor engine for batches of 1 to 8, compiled once a session.

    Its weights are beside it, `tiny.pth`; a file of a checkpoint does not store the recipe, the engine does.
    """
    import torch

    from evovit_deploy import random_checkpoint
    from evovit_deploy.building.export import ExportJob, export
    from evovit_deploy.checkpoint.options import CheckpointOptions
    from evovit_deploy.engines.inductor.compiling import check_compiler
    from evovit_deploy.errors import EngineError
    from evovit_deploy.export.onnx import ExportOptions
    from evovit_deploy.export.source import ExportSource
    from evovit_deploy.models.options import ModelOptions

    from .export.conftest import TINY

    try:
        check_compiler()
    except EngineError as error:
        pytest.skip(str(error))
    path = session_folder / "inductor" / "tiny.pt2"

    def make() -> None:
        weights, options = path.with_suffix(".pth"), ExportOptions(ModelOptions(outputs=("logits", "kept")))
        torch.save(random_checkpoint(TINY).state, weights)
        build, source = {"target": "inductor", "max_batch": 8}, ExportSource(weights, CheckpointOptions(TINY))
        export(ExportJob(source, options, output=path, engine=True, build=build, device="cpu"))

    return exports.once(path, make)


@pytest.fixture
def evovit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """Run a command as the entry point does: (exit code, stdout, stderr)."""
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")

    from evovit_deploy import cli

    def run(*arguments: Any) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["evovit", *map(str, arguments)])
        monkeypatch.delenv("EVOVIT_VERBOSE", raising=False)
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def evovit_on_a_line(evovit: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with all that is on stderr on one line."""

    def run(*arguments: Any) -> tuple[Any, str, str]:
        code, out, err = evovit(*arguments)
        return code, out, " ".join(err.split())

    return run
