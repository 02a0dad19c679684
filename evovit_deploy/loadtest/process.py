"""A service as a separate process on free ports of the loopback address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import EngineError

__all__ = ["Served", "serve_command", "serving"]

PATIENCE = 60.0  # seconds for a model to load, or for a service to end
KEPT_LINES = 100_000  # of the log


def serve_command(model: Path, name: str, *options: object) -> list[str]:
    """Return the command line of `evovit serve` in this environment, for one model on free ports."""
    start = "from evovit_deploy.cli import main; main()"
    words = ["serve", f"{name}={model}", "--port", "0", "--grpc-port", "0", *map(str, options)]
    return [sys.executable, "-c", start, *words]


class Served:
    """A service that runs.

    Attributes:
        http, grpc: ``host:port``.
        log: Lines of its stderr, the latest ones.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.http = self.grpc = ""
        self.log: deque[str] = deque(maxlen=KEPT_LINES)
        self._ready, self._reading = threading.Event(), threading.Event()
        self._reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(PATIENCE) or not self.grpc:
            raise EngineError("the service did not start; it said:\n" + "\n".join(list(self.log)[-20:]))

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.startswith("ready:"):
                _, protocol, address = line.split()
                setattr(self, protocol, address.rpartition("//")[2])
            else:
                self.log.append(line.rstrip("\n"))
            if self.http and self.grpc:
                self._ready.set()
            self._reading.wait()
        self._ready.set()

    def get(self, path: str) -> Any:
        """Return the JSON document at a path."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str) -> Any:
        """Send the same with an empty JSON object as body."""
        request = urllib.request.Request(f"http://{self.http}{path}", b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def queued(self) -> int:
        """Return images that wait, by the service's own metric."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith("evovit_queue_images{")))

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of its one model."""
        found: dict[str, Any] = self.get("/v2/models/stats")["model_stats"][0]
        return found

    def resident_bytes(self) -> int | None:
        """Return the memory of the process now, or None where the system does not say."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return None

    def peak_bytes(self) -> int | None:
        """Return the largest memory of the process so far, or None where the system does not say."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
            return int(text.partition("VmHWM:")[2].split()[0]) << 10
        except (OSError, ValueError, IndexError):
            return None

    def stall(self) -> None:
        """Read its stderr no more until it has ended."""
        self._reading.clear()

    def signal(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        code = self._process.wait(PATIENCE)
        self._reading.set()
        self._reader.join(PATIENCE)
        return code


@contextmanager
def serving(command: Sequence[str], **environment: str) -> Iterator[Served]:
    """Start a service and wait until it is ready; it is gone at the end in any case.

    Args:
        command: That starts it.
        environment: Variables beside those of this process.

    Raises:
        EngineError: It did not get ready; the message holds the end of its log.
    """
    variables = {**os.environ, "EVOVIT_TOKEN": "", **environment}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            yield Served(process)
        finally:
            process.kill()
