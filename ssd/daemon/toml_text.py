"""A tree of plain values as TOML text (https://toml.io/en/v1.0.0), for people to read and for files to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Any


def document(tree: Mapping[str, Json], prefix: str = "") -> str:
    """A tree of tables; a setting without a value becomes a comment.

    Args:
        tree: tables and values of JSON's types.
        prefix: the dotted name of the table the tree is; "" for a whole file.
    """
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    lines = [f"[{prefix}]"] if prefix and plain else []
    for name, value in plain.items():
        lines.append(f"# {key(name)} is not set" if value is None else f"{key(name)} = {literal(value)}")
    blocks = ["\n".join(lines)] if lines else []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            blocks.append(document(value, f"{prefix}.{key(name)}" if prefix else key(name)))
    return "\n\n".join(filter(None, blocks))


def literal(value: Json) -> str:
    """One value as TOML writes it. There is no null in TOML, so None must not be in it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key(name)} = {literal(item)}" for name, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def key(name: str) -> str:
    """A key, quoted where it has to be."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else literal(name)
