"""What pydantic finds wrong with a setting, in words that say what to write instead."""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails

_TABLES = frozenset({"model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"})
_ARRAYS = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_PATHS = frozenset({"is_instance_of", "path_type"})
_LONGEST = 60
_SIZE = re.compile(r"(?:Tuple|List|Set|Frozenset|Dictionary|String|Value|Data) should (.*)")
"""How pydantic begins a sentence about a length: with a word of Python."""


def mistake(found: ErrorDetails) -> str:
    """The end of a sentence that begins with the setting's place: "must be a valid integer, not 'ten'"."""
    if found["type"] == "missing":
        return "is missing"
    message = found["msg"].removeprefix("Value error, ")
    hint = ""
    if found["type"] in _TABLES:
        message = "Input should be a table"
    elif found["type"] in _ARRAYS:
        message, hint = "Input should be a valid array", _as_array(found["input"])
    elif found["type"] in _PATHS and found.get("ctx", {}).get("class", "Path") == "Path":
        message = "Input should be a path" + (" in quotes" if not isinstance(found["input"], str) else "")
    elif size := _SIZE.fullmatch(message):
        return f"must {size[1].replace(' after validation', '')}"
    if not message.startswith("Input should be"):
        return message
    shown = repr(found["input"])
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
    return f"{message.replace('Input should be', 'must be', 1)}, not {shown}{hint}"


def _as_array(value: object) -> str:
    """How a text that was meant as an array is written as one, after a colon; empty if that would be long."""
    if not isinstance(value, str):
        return ""
    parts = [part.strip().strip("[]()").strip("\"' ") for part in value.split(",")]
    plain = all(re.fullmatch(r"-?\d+(\.\d+)?", part) for part in parts)
    written = ", ".join(part if plain else f'"{part}"' for part in parts)
    safe = all(re.fullmatch(r"[^\x00-\x1f\x7f\"\\]+", part) for part in parts)
    return f": write [{written}]" if safe and len(written) <= _LONGEST else ""
