r"""Strangers' words made harmless for a terminal, a log and whatever shows one.

Names, reasons and sentences of other machines may hold anything: a sequence that sets a window's title or clears the
screen, a character that turns the direction of writing, a line of its own. Whatever Python does not call printable
(control and formatting characters, unassigned ones, every space but the usual one) never goes out as it is.

For people it becomes a replacement character: `printable`, `harmless`. Where it may matter later what it was, it is
spelled out as `\uXXXX`: `json_text`, which stays the JSON of the same value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Json = Any
_STYLE = re.compile("(\x1b\\[[0-9;]*m)")
STAND_IN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, stand_in: str = STAND_IN) -> str:
    """One line that moves no cursor, changes no colour and turns no direction of writing."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else stand_in for each in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def printable_but_styled(text: str) -> str:
    """The same for one line that has colours of our own in it, which stay."""
    pieces = _STYLE.split(text)
    return "".join(piece if at % 2 else printable(piece) for at, piece in enumerate(pieces))


def harmless(value: Json) -> Json:
    """A JSON value of which every text and every name passed through `printable`."""
    match value:
        case str():
            return printable(value)
        case Mapping():
            return {printable(str(name)): harmless(item) for name, item in value.items()}
        case list() | tuple():
            return [harmless(item) for item in value]
    return value


def json_text(value: Json, **options: Any) -> str:
    """The value as one line of JSON that any terminal may show; `options` are those of `json.dumps`."""
    text = json.dumps(value, **{"ensure_ascii": False, **options})
    if text.isprintable():
        return text
    # Outside of its strings JSON has nothing but printable characters, so every other one may be spelled out.
    return "".join(each if each.isprintable() else _spelled(each) for each in text)


def _spelled(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
