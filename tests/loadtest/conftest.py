from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evovit_deploy.loadtest import process
from tests import warm


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services are forked from a Python that has imported what they need, which counts in no peak and no time here."""

    def popen(command: list[str], *, env: dict[str, str], **_: Any) -> warm.Piped:
        return warm.Piped(command[1:], Path.cwd(), env)

    monkeypatch.setattr(process, "subprocess", SimpleNamespace(Popen=popen, PIPE=None))
