"""Finds the code blocks of the README and the docs."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "digits" / "README.md"]


@dataclass(frozen=True)
class Block:
    """A code block as it is printed.

    Attributes:
        page: File name below the repository.
        line: Where it begins, from 1.
        language: After the fence; ``sh`` for an indented block.
        text: Without fence and indentation.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What a person would type: comments gone, continued lines joined."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        found = [re.sub(r"(^|\s+)#.*", "", line).strip().removeprefix("$ ") for line in joined.splitlines()]
        return [line for line in found if line]


def blocks(page: Path) -> list[Block]:
    """Every code block of a page, fenced or indented by four blanks, in order."""
    name = page.relative_to(ROOT).as_posix()
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        start = i
        if fence := re.fullmatch(r"```(\w*)", lines[i]):
            i += 1
            while lines[i] != "```":
                i += 1
            found.append(Block(name, start + 1, fence[1] or "text", "\n".join(lines[start + 1 : i]) + "\n"))
        elif lines[i].startswith("    ") and (i == 0 or not lines[i - 1].strip()):
            while i < len(lines) and (lines[i].startswith("    ") or not lines[i].strip()):
                i += 1
            text = textwrap.dedent("\n".join(lines[start:i])).strip() + "\n"
            found.append(Block(name, start + 1, "sh", text))
            continue
        i += 1
    return found
