from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.errors import InputError
from evovit_deploy.serve.settings import ModelSource, ServiceSettings

TIMES = ("timeout", "run_timeout", "body_timeout", "drain")


def test_names_and_versions() -> None:
    sources = ModelSource.parse_all(["a/b c.onnx", "x=1.onnx", "x=2.onnx", "x:7=d/e=f.onnx", "x=3.onnx"])
    assert [(source.name, source.version, str(source.path)) for source in sources] == [
        ("b_c", "1", "a/b c.onnx"),
        ("x", "1", "1.onnx"),
        ("x", "2", "2.onnx"),
        ("x", "7", "d/e=f.onnx"),
        ("x", "8", "3.onnx"),
    ]


@pytest.mark.parametrize("texts", [[], ["=a"], ["a/b=."], ["a:0=c"], ["a:x=c"], ["a:1=b", "a:1=c"], ["..=c"]])
def test_wrong_sources(texts: list[str]) -> None:
    with pytest.raises(InputError):
        ModelSource.parse_all(texts)


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70000},
        {"port": 9000, "grpc_port": 9000},
        {"timeout": 0},
        *({name: value} for name in TIMES for value in (float("nan"), float("inf"), 1e10, -1.0)),
        *({"max_delay_ms": value} for value in (float("nan"), float("inf"), 1e14, -1.0)),
        *({name: 1.5} for name in ("max_queue", "workers", "max_concurrent", "max_pixels")),
        {"drain": -1},
        {"max_queue": 0},
        {"token": ""},
        {"token": "a b"},
        {"token": "é"},
        {"certificate": Path("x.pem")},
        {"certificate": Path("x.pem"), "private_key": Path("y.pem")},
    ],
)
def test_wrong_settings(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ServiceSettings(**options)


def test_ports_that_are_free_are_no_conflict() -> None:
    assert ServiceSettings(port=0, grpc_port=0).max_bytes == 64 << 20
