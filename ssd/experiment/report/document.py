"""Headings, paragraphs, tables and pictures, independent of how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Heading:
    """Level 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """`*word*` is emphasised; nothing else is markup."""

    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first column is words, the others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file."""

    path: Path
    words: str


Block = Heading | Paragraph | Grid | Picture
