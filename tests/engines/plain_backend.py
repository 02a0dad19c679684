"""A backend as another package would register it."""

from __future__ import annotations

from evovit_deploy.engines.registry import Backend, register
from tests.engines.test_registry import open_sum

register(Backend("plain", "as sum", "engine", "files of sums", (".plain",), open_sum, "numpy"))
