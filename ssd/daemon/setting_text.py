"""Settings described from their types: what may be written, what they default to, what they mean.

Example files and the configuration reference are made of these descriptions, so they cannot lag behind the code. A
section is a pydantic model class with a docstring under each field; it is read by its public attributes
(`model_fields`), so that nothing here imports pydantic.
"""

from __future__ import annotations

import textwrap
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ssd.daemon.toml_text import key, literal

Json = Any
_WIDTH = 118
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
_BOUNDS = (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting."""

    table: str
    key: str
    kind: str
    """What may be written, in words: type and bounds."""
    default: Json
    """JSON value; None: it is not set. `computed` tells whether it is of this host only."""
    computed: bool
    text: str
    """What it means; one paragraph of Markdown."""

    @property
    def name(self) -> str:
        """`table.key`, as flags and messages write it."""
        return f"{self.table}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"SSD_{self.table}_{self.key}".upper()


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table of a configuration file."""

    name: str
    text: str
    settings: tuple[Setting, ...]


def tables(root: Any) -> tuple[Table, ...]:
    """The tables of a configuration.

    Args:
        root: the class of the whole tree; a field whose type has no fields of its own is a table of free keys.
    """
    found = []
    for name, info in root.model_fields.items():
        section = info.annotation
        if hasattr(section, "model_fields"):
            found.append(
                Table(
                    name=name,
                    text=_paragraph(section.__doc__ or ""),
                    settings=tuple(_settings(name, section)),
                )
            )
        else:
            found.append(Table(name=name, text=_paragraph(info.description or ""), settings=()))
    return tuple(found)


def _settings(table: str, section: Any) -> list[Setting]:
    return [
        Setting(
            table=table,
            key=name,
            kind=kind_text(info.annotation, info.metadata),
            default=_plain(info.get_default(call_default_factory=True)),
            computed=bool(info.default_factory) and info.default_factory not in (dict, list, tuple),
            text=_paragraph(info.description or ""),
        )
        for name, info in section.model_fields.items()
    ]


def kind_text(kind: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words: "whole number, at least 1", "text", "`off`, `passive` or `active`", "list of paths".

    Args:
        kind: the annotation; a type that is not known here is called a table.
        metadata: what stands beside it in `Annotated`; bounds are read, the rest is left to the text.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        beside = [part for each in arguments[1:] for part in getattr(each, "metadata", (each,))]
        return kind_text(arguments[0], [*beside, *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join(kind_text(part, metadata) for part in arguments if part is not type(None))
    if origin is Literal:
        *most, last = (f"`{part}`" for part in arguments)
        return f"{', '.join(most)} or {last}" if most else last
    if origin in (tuple, list):
        of = kind_text(arguments[0])
        return f"list of {of}s" if of in _WORDS.values() else f"list of {of}"
    if origin is not None and issubclass(origin, Mapping):
        of = kind_text(arguments[1])
        return "table" if of in {"table", "anything"} else f"table: name to {of}"
    if kind is Any:
        return "anything"
    limits = [(words, getattr(each, name, None)) for name, words in _BOUNDS for each in metadata]
    bounds = [f"{words} {_number(limit)}" for words, limit in limits if limit is not None]
    return ", ".join([_WORDS.get(kind, "table"), *bounds])


def example_file(
    head: str, found: Sequence[Table], values: Mapping[str, Mapping[str, Json]], live: Collection[str]
) -> str:
    """A commented TOML file with every setting in it.

    Args:
        head: text for the first lines.
        found: the tables.
        values: the value of every setting, by table and key.
        live: the `table.key`s whose value is written; of all others the default stands behind a `#`.
    """
    blocks = [_comment(head)]
    for table in found:
        lines = [_comment(table.text), f"[{table.name}]"]
        nested: list[tuple[Setting, Mapping[str, Json]]] = []
        for setting in table.settings:
            value = values[table.name][setting.key]
            is_live = setting.name in live
            if isinstance(value, Mapping) and value and is_live:
                nested.append((setting, value))
                continue
            lines += ["", _comment(f"{setting.text} ({setting.kind})"), _assignment(setting, value, is_live)]
        for setting, inside in nested:
            lines += ["", _comment(f"{setting.text} ({setting.kind})"), f"[{table.name}.{setting.key}]"]
            lines += [f"{key(name)} = {literal(item)}" for name, item in inside.items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _assignment(setting: Setting, value: Json, live: bool) -> str:
    shown = value if live else setting.default
    if shown is None:
        return f"# {setting.key} is not set"
    return f"{'' if live else '#'}{key(setting.key)} = {literal(shown)}"


def _comment(text: str) -> str:
    paragraphs = (
        textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.splitlines()
    )
    return "\n".join(f"# {line}".rstrip() for paragraph in paragraphs for line in paragraph)


def _number(value: float) -> str:
    power = value.bit_length() - 1 if isinstance(value, int) else 0
    if power >= 20 and value == 1 << power:
        return f"2^{power}"
    return str(value) if isinstance(value, int) else f"{value:g}"


def _paragraph(text: str) -> str:
    return " ".join(text.split())


def _plain(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
