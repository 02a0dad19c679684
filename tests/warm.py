"""A Python that has torch and the command line imported, and forks: a process of its own in no time.

What runs in such a child has its own files, signals, session, folder and environment, as in an interpreter that was started for
it; only the imports are done. Where an import is the point of a test, or the end of an interpreter, it starts a real one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing.process
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FINISHED = 120.0  # seconds that a killed process may take to be gone


class WarmProcess:
    """A forked child, used like a :class:`subprocess.Popen`.

    Args:
        arguments: Of the Python interpreter: ``-c CODE ...``, ``-m MODULE ...`` or ``SCRIPT ...``.
        streams: Descriptors of its stdin, stdout and stderr.
        folder: To run in.
        environment: All of it.
    """

    def __init__(
        self, arguments: Sequence[str], streams: tuple[int, int, int], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.args, self.returncode = list(arguments), None
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._told.connect(_server())
        request = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
        socket.send_fds(self._told, [f"{len(request):8}".encode()], streams)
        self._told.sendall(request)
        self._lines = self._told.makefile()
        self.pid = int(self._lines.readline())

    returncode: int | None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Piped(WarmProcess):
    """A forked child whose output is read here, used like ``subprocess.Popen(..., stdout=PIPE, stderr=PIPE, text=True)``.

    Args:
        arguments, folder, environment: As of :class:`WarmProcess`.
        stdin: A descriptor, of nothing unless given.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        stdin: int | None = None,
    ) -> None:
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin)
        try:
            super().__init__(arguments, (nothing, out_end, err_end), folder, environment or os.environ)
        finally:
            for descriptor in (nothing, out_end, err_end):
                os.close(descriptor)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read the rest of stdout and stderr, and wait for the end."""
        found = {}
        streams = {"out": self.stdout, "err": self.stderr}
        readers = [
            threading.Thread(target=lambda name=name, stream=stream: found.update({name: stream.read()}), daemon=True)
            for name, stream in streams.items()
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return found["out"], found["err"]

    def __enter__(self) -> Piped:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.stdout.close()
        self.stderr.close()


@functools.cache
def _server() -> str:
    """Address of the process that forks, which is started once and ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix="evovit-warm-")
    address = str(Path(folder.name) / "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", address], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None

    def end() -> None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(FINISHED)
        folder.cleanup()

    atexit.register(end)
    assert server.stdout.read(5) == b"ready"
    return address


def _serve(address: str) -> None:
    """Fork a child for each connection, until stdin is closed."""
    for name in (
        "torch",
        "timm",
        "onnxruntime",
        "evovit_deploy.cli",
        "evovit_deploy.engines",
        "evovit_deploy.serve.server",
    ):
        importlib.import_module(name)  # for its children
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for the children are nobody's to wait for
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(32)
    os.write(1, b"ready")
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Start the child, tell its number, and in the end its exit code."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int(size):
        request += connection.recv(int(size) - len(request))
    arguments, folder, environment = json.loads(request)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(_run(arguments, folder, environment, streams))
    for descriptor in (0, 1, 2, *streams):  # a pipe is at its end when the child is
        with contextlib.suppress(OSError):
            os.close(descriptor)
    with contextlib.suppress(OSError):
        connection.sendall(f"{pid}\n".encode())
        connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
    os._exit(0)


def _run(arguments: list[str], folder: str, environment: dict[str, str], streams: Sequence[int]) -> int:
    """Be an interpreter that was started so; its exit code."""
    import runpy

    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder  # type: ignore[attr-defined]  # where processes look for its script
    os.environ.clear()
    os.environ.update(environment)
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream: Any = open(number, "r" if number == 0 else "w", encoding=encoding, closefd=False)  # noqa: SIM115
        if number == 2:
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for main in ("__main__", "tests.warm"):
        sys.modules.pop(main, None)
    code = 0
    try:
        kind, *rest = arguments
        if kind == "-c":
            sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv, sys.path[0] = rest, folder
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, str(Path(kind).resolve().parent)
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
