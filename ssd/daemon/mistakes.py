"""What pydantic finds wrong with a setting, in words that say what to write instead."""

from __future__ import annotations

from pydantic_core import ErrorDetails

_TABLES = frozenset({"model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"})
_LONGEST = 60


def mistake(found: ErrorDetails) -> str:
    """The end of a sentence that begins with the setting's place: "must be a valid integer, not 'ten'"."""
    if found["type"] == "missing":
        return "is missing"
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] in _TABLES:
        message = "Input should be a table"
    if not message.startswith("Input should be"):
        return message
    shown = repr(found["input"])
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
    return f"{message.replace('Input should be', 'must be', 1)}, not {shown}"
