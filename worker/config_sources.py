"""Raw configuration values out of a TOML file, the environment and flags, and where each was written.

What is valid is not known here; see `worker.config.sections`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.errors import ConfigInvalid

Json = Any
Key = tuple[str, ...]
PREFIX = "SSD_"


@dataclass(kw_only=True)
class RawConfig:
    """Values not yet checked, and their origins."""

    values: dict[str, Json] = field(default_factory=dict)
    file: Path | None = None
    lines: Mapping[Key, int] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)
    """Keys that a variable or flag set."""

    def put(self, table: str, key: str, value: Json, origin: str) -> None:
        """Lay one value over what is there."""
        section = self.values.get(table)
        self.values[table] = {**section, key: value} if isinstance(section, dict) else {key: value}
        self.origins[table, key] = origin

    def where(self, key: Key) -> str:
        """`file:line`, a variable, a flag: the beginning of a complaint about a key."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        if self.file is None:
            return "configuration"
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return f"{self.file}:{self.lines[key[:length]]}"
        return str(self.file)


def read(
    path: Path | None,
    flags: Mapping[str, Json],
    environ: Mapping[str, str],
    text_keys: Mapping[str, frozenset[str]],
) -> RawConfig:
    """Flag over environment over file.

    Args:
        path: the TOML file, or None.
        flags: `table.key` -> value; None values count as not given.
        environ: the process environment; `SSD_<TABLE>_<KEY>` of known tables is looked at.
        text_keys: table -> its keys that hold text; other values are read as TOML.

    Raises:
        ConfigInvalid: the file cannot be read or is not TOML.
    """
    raw = _read_file(path) if path is not None else RawConfig()
    for name in sorted(environ):
        rest = name.removeprefix(PREFIX).lower()
        # A table's name may have an underscore too.
        table = next((table for table in text_keys if rest.startswith(f"{table}_")), "")
        key = rest.removeprefix(f"{table}_")
        if name.startswith(PREFIX) and key and table:
            raw.put(table, key, _value(environ[name], is_text=key in text_keys[table]), name)
    for dotted, value in flags.items():
        table, _, key = dotted.partition(".")
        if not table or not key:
            raise ConfigInvalid(f"{dotted!r} names no setting; write table.key, for example worker.name")
        if value is None:
            continue
        is_text = key in text_keys.get(table, frozenset())
        raw.put(
            table, key, _value(value, is_text=is_text) if isinstance(value, str) else value, f"flag {dotted}"
        )
    return raw


def _read_file(path: Path) -> RawConfig:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: not valid TOML: {error}") from error
    return RawConfig(values=values, file=path, lines=key_lines(text))


def _value(text: str, *, is_text: bool) -> Json:
    if is_text:
        return text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def key_lines(text: str) -> dict[Key, int]:
    """1-based line of every table header and `key =` of a TOML text, by searching; good enough for a message."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]", line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            lines.setdefault(table + _parts(assigned[1]), number)
    return lines


def _parts(dotted: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
