"""The fenced blocks of the documentation, and the shell commands in them.

A block of commands is one fenced as `sh` or `console`, or as nothing at all unless it draws something. A command is a
line of it that is more than a comment; a backslash at its end takes the next line along.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_DRAWN = re.compile(r"[─│]|/…")
"""Lines of a picture, or a folder's layout."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    page: str
    """Path in the repository."""
    heading: str
    """The nearest one above."""
    language: str
    text: str

    @property
    def place(self) -> str:
        """How a story names it: `docs/page.md#Heading`."""
        return f"{self.page}#{self.heading}"

    @property
    def commands(self) -> tuple[str, ...]:
        """Its shell commands, comments taken off."""
        if self.language not in {"sh", "console", ""} or (not self.language and _DRAWN.search(self.text)):
            return ()
        joined = self.text.replace("\\\n", " ").splitlines()
        return tuple(command for line in joined if (command := without_comment(line)))


def blocks(page: str) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = list(_FENCED.finditer(text))
    inside = [range(fence.start(), fence.end()) for fence in fences]
    headings = [
        found for found in _HEADING.finditer(text) if not any(found.start() in each for each in inside)
    ]
    for fence in fences:
        heading = next(found[1] for found in reversed(headings) if found.start() < fence.start())
        yield Block(page, heading, fence[1], fence[2])


def without_comment(line: str) -> str:
    """A command line as it is typed, without the remark behind it."""
    for position, character in enumerate(line):
        if character == "#" and (position == 0 or line[position - 1] == " "):
            try:
                shlex.split(line[:position])
            except ValueError:
                continue  # inside quotes
            return line[:position].strip()
    return line.strip()
