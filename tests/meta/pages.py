"""README.md and docs/*.md as sections of fenced blocks; docs/contributing.md explains the marks in front of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"(?:<!-- ([a-z ]+)(?:: ([^\n]*))? -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, the mark in front of it and the mark's argument."""

    mark: str
    argument: str
    language: str
    text: str


class Section(NamedTuple):
    """The blocks under one heading of the second level; empty title for what stands before the first."""

    page: Path
    title: str
    blocks: list[Block]

    @property
    def runs(self) -> bool:
        """Whether there is anything to execute."""
        return any(block.mark in {"run", "serve"} for block in self.blocks)


def sections(page: Path) -> Iterator[Section]:
    """The sections of a page, in order."""
    parts = _HEADING.split(page.read_text("utf-8"))
    for title, text in zip(["", *parts[1::2]], parts[0::2], strict=True):
        found = _FENCE.finditer(text)
        yield Section(page, title, [Block(*(group or "" for group in fence.groups())) for fence in found])
