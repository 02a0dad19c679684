"""The limits page of docs/production.md says what the settings are, and its formula is the code's."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from evovit_deploy.serve.memory import worst_memory
from evovit_deploy.serve.settings import Settings

from .test_docs import PAGE

IMAGE = 3 * 224 * 224 * 4
LIMITS = (
    "max_queue", "max_concurrent", "max_request_mib", "max_body_mib", "body_timeout", "timeout", "run_timeout", "max_pixels",
    "max_connections", "max_header_kib", "header_timeout", "idle_timeout", "max_streams",
)  # fmt: skip


def rows() -> list[tuple[str, str, str]]:
    """(option, its default, what to set for strangers) of each row of the page that has an option."""
    text = PAGE.read_text()
    page = text[text.index("### Limits") : text.index("**Memory.**")]
    return re.findall(r"^\|[^|]*\| `--([a-z-]+) ([0-9.]+)` \|[^|]*\| ([0-9.]*) \|$", page, re.MULTILINE)


def public() -> Settings:
    """The settings for strangers."""
    names = {option.replace("-", "_"): value for option, _, value in rows()}
    kinds = {field.name: field.type for field in fields(Settings)}
    return Settings(**{name: (int if kinds[name] == "int" else float)(value) for name, value in names.items()})  # type: ignore[arg-type]


def test_every_limit_is_on_the_page_with_its_default() -> None:
    found = {option.replace("-", "_"): float(default) for option, default, _ in rows()}
    assert found == {name: float(getattr(Settings(), name)) for name in LIMITS}
    timed = {field.name for field in fields(Settings) if field.name.startswith("max_") or "timeout" in field.name}
    assert timed - set(LIMITS) == {"max_batch", "max_delay_ms"}
    assert all(value for _, _, value in rows())


def mib(settings: Settings) -> int:
    return round(sum(worst_memory(settings, IMAGE).values()) / (1 << 20))


def test_the_formula_is_the_pages() -> None:
    [said] = re.findall(
        r"is ([0-9,]+) MiB by default, ([0-9,]+) MiB with `--no-grpc`, and ([0-9,]+) MiB", PAGE.read_text()
    )
    assert [int(number.replace(",", "")) for number in said] == [
        mib(Settings()), mib(Settings(grpc_port=None)), mib(public())
    ]  # fmt: skip


@pytest.mark.parametrize("encrypted", [False, True])
def test_every_term_is_on_the_page(encrypted: bool, tmp_path: Path) -> None:
    for name in ("c", "k"):
        (tmp_path / name).touch()
    tls = {"certificate": tmp_path / "c", "private_key": tmp_path / "k"} if encrypted else {}
    for term in worst_memory(Settings(**tls), IMAGE):  # type: ignore[arg-type]
        assert re.search(rf"^{term}  +\S", PAGE.read_text(), re.MULTILINE)
