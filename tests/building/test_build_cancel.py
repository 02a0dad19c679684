"""Progress of a real build, and what is left when it is cancelled: nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evovit_deploy.building.build import build_engine
from evovit_deploy.engines.trt.options import BuildOptions
from tests.trt_models import tiny_onnx

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
RTX = BuildOptions(target="tensorrt-rtx")


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


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The real signal, while TensorRT compiles: no crash, nothing left, and Ctrl-C's own exit."""
    program = (
        "import signal, sys, threading\n"
        "pressed = threading.Event()\n"
        "def interrupted(*arguments): pressed.set(); signal.default_int_handler(*arguments)\n"
        "signal.signal(signal.SIGINT, interrupted)\n"  # a parent in the background may ignore it
        "from evovit_deploy.building.build import build_engine\n"
        "from evovit_deploy.engines.trt.options import BuildOptions\n"
        "def progress(phase, fraction):\n"
        "    if phase == 'Determining refit engines' and not pressed.is_set():\n"
        "        print('compiling', flush=True)\n"
        "        pressed.wait()\n"  # however long the signal takes, the build is not over before it
        "try: build_engine(sys.argv[1], sys.argv[2], BuildOptions(target='tensorrt-rtx'), progress=progress)\n"
        "except KeyboardInterrupt: sys.exit(42)\n"
    )
    arguments = [sys.executable, "-c", program, str(tiny_onnx()), str(tmp_path / "m.engine")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == b"compiling\n"
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(600) == 42
    assert list(tmp_path.iterdir()) == []
