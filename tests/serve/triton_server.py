"""A real tritonserver, on free ports of the loopback address, in processes of its own.

``make test`` puts it into ``.venv/triton``; the variable ``EVOVIT_TRITON`` names another folder. Its Python backend runs with
this environment's own interpreter, numpy and ONNX Runtime.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from .engines import PATIENCE

FOLDER = Path(os.environ.get("EVOVIT_TRITON") or Path(sys.prefix) / "triton")
SERVER = FOLDER / "pytriton" / "tritonserver"
STUB = SERVER / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"
BACKEND = Path(__file__).parent / "triton_backend" / "model.py"


@dataclass
class Triton:
    """A server and where it listens, ``host:port``."""

    http: str
    grpc: str
    log: Path

    def runs(self, model: str) -> list[tuple[int, int]]:
        """Images and requests of every run of a model's version, ``name:version``."""
        lines = [line.split() for line in self.log.read_text().splitlines() if line.startswith(f"ran {model} on ")]
        return [(int(line[3]), int(line[6])) for line in lines]


def require_triton() -> None:
    """Skip the test where there can be no Triton; where it is only missing, skip too, but fail in CI."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.implementation.name == "cpython"):
        pytest.skip("the wheel with a real Triton is for CPython on Linux x86-64")
    reason = _missing()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@functools.cache
def _missing() -> str | None:
    """What keeps Triton from running here, or None."""
    if not (SERVER / "bin" / "tritonserver").is_file():
        return f"no real Triton in {FOLDER}; `make test` installs it"
    if not STUB.is_file():
        return f"this Triton has no Python backend for Python {platform.python_version()}"
    _executable(STUB)
    run = subprocess.run([STUB], env=_environment(), capture_output=True, text=True, timeout=PATIENCE)
    if run.returncode == 127:  # of the dynamic loader: no shared libpython, or an old glibc
        return f"Triton's Python backend does not start: {run.stderr.strip()}"
    return None


def _executable(path: Path) -> None:
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)


def _environment() -> dict[str, str]:
    """The backend takes the interpreter, and with it the packages, of the first ``python3`` on the PATH."""
    libraries = (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", FOLDER / "nvidia_pytriton.libs")
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, filter(None, libraries))),
        "CUDA_VISIBLE_DEVICES": "",  # the same on every machine
    }


def _backends(folder: Path) -> Path:
    """The folder of backends: Python, and ours under the name that the packaged configuration asks for."""
    shutil.copytree(SERVER / "backends" / "python", folder / "python")
    shutil.copy(STUB, folder / "python" / STUB.name)
    (folder / "onnxruntime").mkdir()
    shutil.copy(BACKEND, folder / "onnxruntime")
    return folder


@contextmanager
def _port() -> Iterator[int]:
    """A free port, held for a server that binds it with SO_REUSEPORT too."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextmanager
def triton_server(repository: Path, scratch: Path, *options: str) -> Iterator[Triton]:
    """Serve a model repository; returns once it is ready, and leaves no process behind.

    Raises:
        RuntimeError: It ended before it was ready; the message is its log.
    """
    require_triton()
    scratch.mkdir()
    log, binary = scratch / "log.txt", SERVER / "bin" / "tritonserver"
    _executable(binary)
    with ExitStack() as stack:
        http, grpc = stack.enter_context(_port()), stack.enter_context(_port())
        command = [
            binary, f"--model-repository={repository}", f"--backend-directory={_backends(scratch / 'backends')}",
            "--http-address=127.0.0.1", f"--http-port={http}", "--reuse-http-port=true",
            "--grpc-address=127.0.0.1", f"--grpc-port={grpc}", "--reuse-grpc-port=true",
            "--allow-metrics=false", "--exit-timeout-secs=5", *options,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, env=_environment(), stdout=stack.enter_context(log.open("wb")), stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        stack.callback(_end, process)
        _wait(process, f"http://127.0.0.1:{http}/v2/health/ready", log)
        yield Triton(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until it is ready."""
    end = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError(f"not ready in time:\n{log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, so that it removes its shared memory, and then kill it with what it started."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    finally:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
