"""The limits page of docs/production.md says what the settings are, and its formula is the code's."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.cli.package.container import container
from evovit_deploy.cli.package.kubernetes import kubernetes
from evovit_deploy.cli.package.ray import ray
from evovit_deploy.cli.package.triton import triton
from evovit_deploy.cli.serve import serve
from evovit_deploy.cluster.options import RayOptions
from evovit_deploy.engines.batching.clock import MAX_DELAY_MS
from evovit_deploy.errors import InputError
from evovit_deploy.packages import ServiceOptions
from evovit_deploy.packages.triton import TritonOptions
from evovit_deploy.serve.limits import Limits, about
from evovit_deploy.serve.memory import worst_memory
from evovit_deploy.serve.settings import ServiceSettings

from .test_docs import PAGE

IMAGE = 3 * 224 * 224 * 4
ELSEWHERE = {"max_batch", "max_delay_ms", "workers", "threads", "drain"}  # they limit no client
LIMITS = {field.name: about(field.name, ServiceSettings) for field in fields(ServiceSettings) if field.metadata}


def rows() -> list[tuple[str, str, str]]:
    """(option, its default, what to set for strangers) of each row of the page that has an option."""
    text = PAGE.read_text()
    page = text[text.index("### Limits") : text.index("**Memory.**")]
    return re.findall(r"^\|[^|]*\| `--([a-z-]+) ([0-9.]+)` \|[^|]*\| ([0-9.]*) \|$", page, re.MULTILINE)


def public() -> ServiceSettings:
    """The settings for strangers."""
    names = {option.replace("-", "_"): value for option, _, value in rows()}
    kinds = {field.name: field.type for field in fields(ServiceSettings)}
    return ServiceSettings(**{name: (int if kinds[name] == "int" else float)(value) for name, value in names.items()})  # type: ignore[arg-type]


def test_every_limit_is_on_the_page_with_its_default() -> None:
    found = {option.replace("-", "_"): float(default) for option, default, _ in rows()}
    assert found == {name: float(getattr(ServiceSettings(), name)) for name in LIMITS if name not in ELSEWHERE}
    timed = {
        field.name for field in fields(ServiceSettings) if field.name.startswith("max_") or "timeout" in field.name
    }
    assert timed <= set(LIMITS)
    assert all(value for _, _, value in rows())


def mib(settings: ServiceSettings) -> int:
    return round(sum(worst_memory(settings, IMAGE).values()) / (1 << 20))


def test_the_formula_is_the_pages() -> None:
    [said] = re.findall(
        r"is ([0-9,]+) MiB by default, ([0-9,]+) MiB with `--no-grpc`, and ([0-9,]+) MiB", PAGE.read_text()
    )
    assert [int(number.replace(",", "")) for number in said] == [
        mib(ServiceSettings()), mib(ServiceSettings(grpc_port=None)), mib(public())
    ]  # fmt: skip


@pytest.mark.parametrize("encrypted", [False, True])
def test_every_term_is_on_the_page(encrypted: bool, tmp_path: Path) -> None:
    for name in ("c", "k"):
        (tmp_path / name).touch()
    tls = {"certificate": tmp_path / "c", "private_key": tmp_path / "k"} if encrypted else {}
    for term in worst_memory(ServiceSettings(**tls), IMAGE):  # type: ignore[arg-type]
        assert re.search(rf"^{term}  +\S", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("options", [ServiceSettings, RayOptions, ServiceOptions, TritonOptions])
def test_a_limit_is_defined_once(options: type) -> None:
    own = {field.name: field for field in fields(Limits)}
    found = {field.name: field for field in fields(options) if field.name in own}
    assert found
    for name, field in found.items():
        assert (field.default, field.metadata) == (own[name].default, own[name].metadata), name


@pytest.mark.parametrize("command", [serve, container, kubernetes, ray, triton])
def test_the_command_line_has_the_defaults(command: Callable[..., None]) -> None:
    parameters = inspect.signature(command).parameters
    shared = {name: each.default for name, each in parameters.items() if name in LIMITS}
    if command is triton:
        del shared["timeout"]  # a request's wait in Triton's queue
    assert shared == {name: getattr(ServiceSettings, name) for name in shared}
    if command is serve:
        assert set(shared) == set(LIMITS)


def wrong(name: str) -> list[Any]:
    """Values just out of the bounds of a limit."""
    limit, whole = (
        about(name, ServiceSettings),
        "int" in str({field.name: field.type for field in fields(ServiceSettings)}[name]),
    )
    values: list[Any] = [-1, 1.5, True] if whole else [math.nan, math.inf, -1.0]
    values += [] if limit.least is None else [limit.least - (1 if whole else 0.001)]
    values += [] if limit.above is None else [limit.above]
    values += [] if limit.most is None else [limit.most + 1]
    return values


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in LIMITS for value in wrong(name)])
def test_what_is_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name} is .*; give .+\.$"):
        ServiceSettings(**{name: value})


def test_the_batcher_waits_as_long_as_a_service_may() -> None:
    assert about("max_delay_ms").most == MAX_DELAY_MS
