from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from evovit_deploy.engines import build as build_module
from evovit_deploy.engines.build import BuildResult, build_engine
from evovit_deploy.engines.engine_manifest import describe_engine
from evovit_deploy.engines.monitor import Phases, run_cancellable
from evovit_deploy.engines.options import BuildOptions
from evovit_deploy.engines.trt_api import Api, Gpu, PlanLogger, load_api, pick_flavour
from evovit_deploy.errors import EngineError, InputError, OutputError, PlanError
from evovit_deploy.files import sha256
from tests.trt_models import CLASSES, DEPTH, SIZE, tiny_onnx

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
RTX = BuildOptions(target="tensorrt-rtx")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build_engine(tiny_onnx(), tmp_path_factory.mktemp("built") / "model.engine", RTX, prove=False)


def test_a_build_writes_a_plain_plan_and_its_manifest(built: BuildResult) -> None:
    assert {p.name for p in built.path.parent.iterdir()} == {"model.engine", "model.engine.json"}
    document = json.loads(built.manifest_path.read_text())
    assert document == built.manifest
    assert document["plan"] == {"sha256": sha256(built.path), "bytes": built.path.stat().st_size}
    assert document["onnx"] == {"file": tiny_onnx().name, "sha256": sha256(tiny_onnx())}
    assert (document["flavour"], document["version"]) == ("tensorrt-rtx", load_api("tensorrt-rtx").version)
    assert document["batch"] == {"min": 1, "opt": 8, "max": 64}
    assert document["io"] == {
        "input": {"name": "images", "dtype": "float32", "shape": [None, 3, SIZE, SIZE]},
        "outputs": {"logits": [None, CLASSES]},
    }
    assert (document["precision"], document["num_classes"], document["name"]) == ("fp16", CLASSES, "evo_deit_test")
    assert document["transform"]["interpolation"] == "bicubic"
    assert document["model"]["recipe"]["evolution"]["keep_ratios"] == [1.0, 0.5, 0.5]
    assert document["status"] == "built, not run here"
    assert str(built.path.parent) not in built.manifest_path.read_text()  # no path of the machine that built it


def test_the_plan_report_is_read_from_the_plan(built: BuildResult) -> None:
    report = built.report
    assert (report.fused, report.attentions, report.unfused) == (DEPTH, DEPTH, ())
    assert report.kernels == len(report.layers) == sum(report.types.values()) == sum(report.precisions.values())
    assert report.precisions["fp16"] > report.kernels / 2
    assert 0 < report.selection_only <= len(report.selection) < report.kernels
    assert any("Topk" in name for name in report.selection)
    parameters = sum(np.prod(t.dims) for t in onnx.load(tiny_onnx()).graph.initializer if len(t.dims) > 1)
    assert report.weights_bytes is not None
    assert 1.5 * parameters < report.weights_bytes < 3 * parameters  # two bytes each
    assert report.activation_bytes is not None
    assert report.activation_bytes > 0
    assert json.loads(built.manifest_path.read_text())["report"] == json.loads(json.dumps(report.to_dict()))


def test_building_again_gives_the_same_plan_report(built: BuildResult, tmp_path: Path) -> None:
    again = build_engine(tiny_onnx(), tmp_path / "again.engine", RTX, prove=False)
    assert again.report.to_dict() == built.report.to_dict()


def test_a_description_needs_neither_tensorrt_nor_a_gpu(built: BuildResult) -> None:
    document = describe_engine(built.path)
    assert document["manifest"] == built.manifest
    assert (document["kind"], document["flavour"], document["notes"]) == ("engine", "tensorrt-rtx", [])


@pytest.mark.parametrize(
    ("precision", "image_input", "outputs", "fused"),
    [("fp32", "float32", "logits", 0), ("bf16", "float32", "logits", DEPTH), ("fp16", "uint8", "logits,kept", DEPTH)],
)
def test_variants_build(tmp_path: Path, precision: str, image_input: str, outputs: str, fused: int) -> None:
    source = tiny_onnx(precision, image_input, outputs=outputs)
    result = build_engine(source, tmp_path / "m.engine", RTX, prove=False)
    assert (result.report.fused, result.report.attentions) == (fused, DEPTH)
    assert result.manifest["precision"] == precision
    assert result.report.precisions[precision] > result.report.kernels / 2
    assert result.manifest["io"]["input"]["dtype"] == image_input
    assert list(result.manifest["io"]["outputs"]) == (["logits", "kept_1"] if "kept" in outputs else ["logits"])
    assert any("--precision fp16" in note for note in result.notes) == (precision == "fp32")
    if precision == "fp32":
        with pytest.raises(PlanError, match=r"0 of 3 places.*--precision fp16"):
            build_engine(
                source,
                tmp_path / "n.engine",
                BuildOptions(target="tensorrt-rtx", require_fused_attention=True),
                prove=False,
            )
        assert not (tmp_path / "n.engine").exists()


def test_a_static_engine_from_a_dynamic_file_is_leaner(built: BuildResult, tmp_path: Path) -> None:
    options = BuildOptions(target="tensorrt-rtx", batch=2, compute_capabilities=("8.6", "12.0"), max_kernels=200)
    result = build_engine(tiny_onnx(), tmp_path / "static.engine", options, prove=False)
    assert result.manifest["batch"] == {"min": 2, "opt": 2, "max": 2}
    assert result.manifest["io"]["input"]["shape"] == [2, 3, SIZE, SIZE]
    assert result.manifest["compute_capabilities"] == ["8.6", "12.0"]
    assert result.report.types.get("shape_call", 0) < built.report.types["shape_call"]


def test_too_many_kernels_leaves_what_was_there(built: BuildResult, tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_text("before")
    with pytest.raises(PlanError, match="more than --max-kernels 5"):
        build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target="tensorrt-rtx", max_kernels=5))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"m.engine": "before"}


def test_progress_rises_to_the_end_and_an_exception_in_it_cancels(tmp_path: Path) -> None:
    seen: list[float] = []

    class Enough(Exception):
        pass

    def progress(phase: str, fraction: float) -> None:
        seen.append(fraction)
        if len(seen) > 50:
            raise Enough

    with pytest.raises(Enough):
        build_engine(tiny_onnx(), tmp_path / "m.engine", RTX, progress=progress)
    assert len(seen) == 51  # not called again after it raised
    assert seen == sorted(seen)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_cancels_and_leaves_nothing(tmp_path: Path) -> None:
    def progress(phase: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(tiny_onnx(), tmp_path / "m.engine", RTX, progress=progress)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [0, 2])
def test_an_interrupt_while_waiting_stops_the_work_and_goes_on(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    cancel, stopped, running = threading.Event(), threading.Event(), threading.Event()
    waiting = threading.main_thread()
    interrupts = iter(range(1 + more))
    real_wait = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        started = running.is_set()  # Thread.start() waits too
        if started and threading.current_thread() is waiting and next(interrupts, None) is not None:
            raise KeyboardInterrupt
        return real_wait(self, timeout)

    def work() -> None:
        running.set()
        real_wait(cancel)
        time.sleep(0.05)  # as TensorRT does before it looks at what its monitor said
        stopped.set()

    monkeypatch.setattr(threading.Event, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work, cancel)
    assert stopped.is_set()


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The real signal, while TensorRT compiles: no crash, nothing left, and Ctrl-C's own exit."""
    program = (
        "import sys\n"
        "from evovit_deploy.engines.build import build_engine\n"
        "from evovit_deploy.engines.options import BuildOptions\n"
        "def progress(phase, fraction):\n"
        "    if phase == 'Determining refit engines': print('compiling', flush=True)\n"
        "try: build_engine(sys.argv[1], sys.argv[2], BuildOptions(target='tensorrt-rtx'), progress=progress)\n"
        "except KeyboardInterrupt: sys.exit(42)\n"
    )
    arguments = [sys.executable, "-c", program, str(tiny_onnx()), str(tmp_path / "m.engine")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == b"compiling\n"
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(60) == 42
    assert list(tmp_path.iterdir()) == []


def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        build_engine(tiny_onnx(), tmp_path / "m.engine", RTX, prove=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hardware_compatibility": "ampere+"}, InputError, "no option hardware_compatibility"),
        ({"version_compatible": True}, InputError, "no option version_compatible"),
        ({"tiling": "full"}, InputError, "no option tiling"),
        ({"compute_capabilities": ("9.0",)}, InputError, "cannot build for compute capability 9.0; valid: 7.5"),
        ({"precision": "fp32"}, InputError, "is fp16, and fp32 was asked for.*--precision fp32"),
        ({"workspace_mib": 1}, EngineError, "could not build .*workspace"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target="tensorrt-rtx", **options), prove=False)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="mkdir -p"):
        build_engine(tiny_onnx(), tmp_path / "none" / "m.engine", RTX)
    for name in ("m.onnx", "m.json"):
        with pytest.raises(InputError, match=r"m\.engine"):
            build_engine(tiny_onnx(), tmp_path / name, RTX)


def test_where_there_is_no_gpu_that_is_said(
    built: BuildResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build_module, "find_gpu", lambda: None)
    result = build_engine(tiny_onnx(), tmp_path / "m.engine", RTX)
    assert result.parity is None
    assert result.notes == ("built, not run here: no usable GPU was found",)
    with pytest.raises(EngineError, match="needs a GPU to build with refit"):
        build_engine(tiny_onnx(), tmp_path / "n.engine", BuildOptions(target="tensorrt-rtx", refit=True))
    full = Api(None, "tensorrt", "10.12.0")
    monkeypatch.setattr(build_module, "load_api", lambda flavour: full)
    with pytest.raises(EngineError, match="--target tensorrt-rtx"):
        build_engine(tiny_onnx(), tmp_path / "n.engine", BuildOptions(target="tensorrt"))
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu(0, "NVIDIA L4", "8.9", 1))
    with pytest.raises(InputError, match="full TensorRT builds for the GPU it runs on"):
        build_engine(tiny_onnx(), tmp_path / "n.engine", BuildOptions(target="tensorrt", compute_capabilities=("8.6",)))


def test_auto_means_full_tensorrt_only_where_it_can_build(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "NVIDIA L4", "8.9", 1)
    installed: set[str] = set()
    monkeypatch.setattr("evovit_deploy.engines.trt_api._installed", lambda flavour: flavour in installed)
    with pytest.raises(EngineError, match="neither TensorRT nor TensorRT-RTX is installed"):
        pick_flavour("auto", gpu)
    with pytest.raises(EngineError, match="TensorRT is not installed"):
        load_api("tensorrt")
    installed.add("tensorrt")
    assert pick_flavour("auto", gpu) == "tensorrt"
    with pytest.raises(EngineError, match="no usable GPU was found"):
        pick_flavour("auto", None)
    installed.add("tensorrt-rtx")
    assert pick_flavour("auto", None) == "tensorrt-rtx"
    assert pick_flavour("tensorrt", None) == "tensorrt"
    with pytest.raises(InputError, match="target 'cuda' is unknown"):
        pick_flavour("cuda", gpu)


def test_phases_nest_and_never_fall() -> None:
    phases = Phases()
    seen = []
    phases.start("build", None, 4)
    phases.step("build", 0)
    seen.append(phases.fraction)
    phases.start("inner", "build", 2)
    phases.step("inner", 0)
    seen.append(phases.fraction)
    phases.start("deep", "inner", 5)
    phases.step("deep", 3)
    seen.append(phases.fraction)
    phases.finish("deep")
    phases.finish("inner")
    seen.append(phases.fraction)
    phases.step("build", 1)
    seen.append(phases.fraction)
    phases.finish("build")
    seen.append(phases.fraction)
    assert seen == pytest.approx([0.25, 0.375, 0.475, 0.475, 0.5, 1.0])
    phases.step("unknown", 3)
    assert phases.fraction == 1.0


def test_the_log_keeps_what_matters() -> None:
    log = PlanLogger()
    assert log.problem() == "no reason was given"
    log.keep(3, "Total Weights Memory: 123 bytes")
    log.keep(3, "Total Activation Memory: 45 bytes")
    log.keep(4, "Layers:\nName: a, LayerType: kgen")
    log.keep(4, "chatter")
    log.keep(2, "careful")
    log.keep(1, "[checkMacros.cpp::catchCudaError::250] no driver")
    log.keep(1, "the real reason.")
    assert log.memory == {"weights": 123, "activation": 45}
    assert log.plan.endswith("LayerType: kgen")
    assert log.warnings == ["careful"]
    assert log.problem() == "the real reason"
