"""Runs commands as a person does, in a terminal: stdout and stderr are pseudo-terminals of their own, to be told apart."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warm import ROOT, WarmProcess

PATIENCE = 600.0  # seconds until a command is taken to hang
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])(?:;\d+)*m")
BOX = "│┃|"
# Runs commands in turn, so that torch is imported once; after each it says its exit code on both streams. With each go the
# width of the terminal and the variables that the environment has for it.
DRIVER = """
import fcntl, json, os, signal, struct, sys, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may ignore it
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C reaches this process
from evovit_deploy.cli import main
before = dict(os.environ)
for words, columns, variables in json.loads(sys.argv[1]):
    for stream in (1, 2):
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    os.environ.clear()
    os.environ.update(before | variables)
    sys.argv = ["evovit", *words]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    for stream in (sys.stdout, sys.stderr):
        print(f"\\0{code}\\0", end="", file=stream, flush=True)
"""
# An export that a test of this session has made is not made again, and a measurement is as short as it can be.
SHARED = """
from tests.exports import install; install()
from tests.measuring import install; install()
"""

Way = tuple[Sequence[str], int, dict[str, str]]  # words, columns, variables


@dataclass(frozen=True)
class Said:
    """What a command wrote, escape sequences included, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of stdout as they are seen."""
        return ESCAPE.sub("", self.out).replace("\r", "").splitlines()


class Terminal:
    """A process in a terminal.

    Args:
        arguments: Of the Python interpreter.
        folder: To run in.
        columns: Width, which :data:`DRIVER` sets for each command.
        warm: Whether it is a fork of a Python that has its imports done; else an interpreter of its own.
        variables: Further environment variables, such as TERM.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, *, columns: int = 80, warm: bool = False, **variables: str
    ) -> None:
        self._masters, slaves = zip(*(pty.openpty() for _ in range(2)))
        for slave in slaves:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        ours = (
            "COLUMNS",
            "LINES",
            "NO_COLOR",
            "FORCE_COLOR",
            "PY_COLORS",
            "TTY_COMPATIBLE",
            "TTY_INTERACTIVE",
            "EVOVIT_VERBOSE",
        )
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables}
        self.process: WarmProcess | subprocess.Popen[bytes]
        if warm:
            self.process = WarmProcess(arguments, (slaves[0], slaves[0], slaves[1]), folder, environment)
        else:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], stdin=slaves[0], stdout=slaves[0], stderr=slaves[1], cwd=folder,
                env=environment, start_new_session=True,
            )  # fmt: skip
        for slave in slaves:
            os.close(slave)
        self._texts = [b"", b""]

    @property
    def out(self) -> str:
        """What came on stdout."""
        return self._texts[0].decode(errors="replace")

    @property
    def err(self) -> str:
        """What came on stderr."""
        return self._texts[1].decode(errors="replace")

    def read(self, until: str | None = None) -> None:
        """Read until the process has ended, or until ``until`` is on stderr."""
        give_up = time.monotonic() + PATIENCE
        open_ = {self._masters[0]: 0, self._masters[1]: 1}
        while open_ and (until is None or until not in self.err):
            if time.monotonic() > give_up:
                self.process.kill()
                raise AssertionError(f"no end in {PATIENCE:g} s: {self.out[-2000:]} {self.err[-2000:]}")
            ready, _, _ = select.select(list(open_), [], [], 1.0)
            for master in ready:
                try:
                    chunk = os.read(master, 65536)
                except OSError:  # the other end is closed
                    chunk = b""
                if chunk:
                    self._texts[open_[master]] += chunk
                else:
                    del open_[master]

    def press_ctrl_c(self) -> None:
        """Type Ctrl-C."""
        os.write(self._masters[0], b"\x03")

    def wait(self) -> int:
        """Read the rest; the exit code."""
        self.read()
        return self.process.wait(60)

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for master in self._masters:
            os.close(master)


@contextlib.contextmanager
def terminal(arguments: Sequence[str], folder: Path, **options: Any) -> Iterator[Terminal]:
    """A process in a terminal, for the length of the block; see :class:`Terminal`."""
    opened = Terminal(arguments, folder, **options)
    try:
        yield opened
    finally:
        opened.close()


def evovit(*words: str, columns: int = 200) -> list[str]:
    """Arguments of Python that run one command."""
    return ["-c", DRIVER, json.dumps([(words, columns, {})])]


def run_all(ways: Sequence[Way], folder: Path, **variables: str) -> list[Said]:
    """Run commands in turn, in one process and one terminal."""
    with terminal(["-c", f"import tests.shallow\n{SHARED}{DRIVER}", json.dumps(ways)], folder, **variables) as opened:
        opened.wait()
        out, err = (text.split("\0") for text in (opened.out, opened.err))
    assert len(out) == len(err) == 2 * len(ways) + 1, f"the process ended early: {out[-1]} {err[-1]}"
    return [Said(int(out[2 * n + 1]), out[2 * n], err[2 * n]) for n in range(len(ways))]
