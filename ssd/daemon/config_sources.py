"""Where configuration comes from: a TOML file, the environment, flags; and where in the file a key stands.

Nothing here knows which keys exist: a daemon's own sections say what is valid. This file only gathers raw values (a flag
wins over the environment, the environment over the file) and remembers where each came from.
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any
Key = tuple[str, ...]
PREFIX = "SSD_"
_log = logging.getLogger(__name__)


class ConfigError(Exception):
    """A configuration cannot be used; the message has one line for every mistake. Each daemon maps it to its own error."""


@dataclass
class Sources:
    """Raw values, not validated yet."""

    values: dict[str, Json] = field(default_factory=dict)
    """Tables as nested dicts."""
    file: Path | None = None
    text: str = ""
    given: dict[Key, str] = field(default_factory=dict)
    """Key -> the variable or flag that set it, for keys that are not from the file."""

    def set(self, key: Key, value: Json, origin: str) -> None:
        """Overrides one key. A value on the way that is no table is replaced by one."""
        table = self.values
        for name in key[:-1]:
            if not isinstance(table.get(name), dict):
                table[name] = {}
            table = table[name]
        table[key[-1]] = value
        self.given[key] = origin

    def override(self, key: Key) -> str:
        """The variable or flag that set a key or a table around it; "" if none did."""
        found = (self.given[key[:length]] for length in range(len(key), 0, -1) if key[:length] in self.given)
        return next(found, "")

    def where(self, key: Key) -> str:
        """Where a key was set, for the start of a message: `file:line`, a variable or a flag."""
        if override := self.override(key):
            return override
        if self.file is None:
            return "configuration"
        line = find_line(self.text, key)
        return f"{self.file}:{line}" if line else str(self.file)


def gather(
    path: Path | None,
    flags: Mapping[str, Json],
    environ: Mapping[str, str],
    tables: Mapping[str, Callable[[str], bool]],
) -> Sources:
    """Reads the file and lays environment and flags over it.

    Args:
        path: the TOML file, or None for none.
        flags: dotted key -> value. Text is read like a variable's, other values are taken as they are; None counts as
            not given.
        environ: the process environment; only `SSD_<TABLE>_<KEY>` of the given tables is looked at.
        tables: every table's name -> a function that tells whether a key of it holds text.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or a flag has no table.
    """
    sources = _read_file(path) if path is not None else Sources()
    links = []
    for name, text in sorted(environ.items()):
        key = _variable_key(name, tables)
        if key is not None and is_service_link(key[1], text):
            links.append(name)
        elif key is not None:
            sources.set(key, parse_text(text, tables[key[0]](key[1])), name)
    if links:
        others = f" and {len(links) - 1} others" if len(links) > 1 else ""
        _log.warning(
            "%s%s are a cluster's links to a service (enableServiceLinks), no settings: ignored",
            links[0],
            others,
        )
    for dotted, value in flags.items():
        key = tuple(dotted.split("."))
        if len(key) < 2 or not all(key):
            raise ConfigError(f"{dotted!r} names no setting: write table.key, for example log.level")
        if value is None:
            continue
        is_text = len(key) == 2 and key[0] in tables and tables[key[0]](key[1])
        parsed = parse_text(value, is_text) if isinstance(value, str) else value
        sources.set(key, parsed, f"flag {dotted}")
    return sources


def _read_file(path: Path) -> Sources:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte-order mark
        return Sources(values=tomllib.loads(text), file=path, text=text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 (byte {error.start + 1}): save it as UTF-8, which TOML is"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def parse_text(text: str, is_text: bool) -> Json:
    """The value a flag or variable means: TOML (`8`, `true`, `["a", "b"]`), otherwise the text itself.

    Args:
        text: what was typed.
        is_text: the setting holds text, so `1` means the text 1; a quoted text loses its quotes all the same.
    """
    if is_text and text[:1] not in {'"', "'"}:
        return text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


_LINK = re.compile(
    r"(?:.*?_)??(?:(?P<host>service_host)|(?P<number>service_port(?:_[a-z0-9_]+)?)|port(?:_\d+_(?:tcp|udp|sctp)"
    r"(?:_(?:(?P<proto>proto)|(?P<port>port)|(?P<addr>addr)))?)?)"
)
_LINK_VALUES = {
    "host": re.compile(r"[0-9a-fA-F.:]+"),
    "addr": re.compile(r"[0-9a-fA-F.:]+"),
    "number": re.compile(r"\d+"),
    "port": re.compile(r"\d+"),
    "proto": re.compile(r"tcp|udp|sctp", re.IGNORECASE),
}
_LINK_URL = re.compile(r"(tcp|udp|sctp)://.*", re.IGNORECASE)


def is_service_link(key: str, text: str) -> bool:
    """Whether a variable is one of those that Kubernetes and Docker make of a service called `ssd-…`.

    They look like `SSD_COORDINATOR_PORT=tcp://10.0.0.1:7443` and `SSD_COORDINATOR_SERVICE_HOST=10.0.0.1`. No setting of
    ours has such a name, and a value of another form is somebody's mistake, which is told.

    Args:
        key: what follows `SSD_TABLE_`, in lower case.
        text: the variable's value.
    """
    found = _LINK.fullmatch(key)
    if found is None:
        return False
    kind = found.lastgroup
    return (_LINK_URL if kind is None else _LINK_VALUES[kind]).fullmatch(text) is not None


def find_line(text: str, key: Key) -> int:
    """The 1-based line a key (or the table it stands in) is written on; 0 if it cannot be told."""
    table: Key = ()
    nearest = 0
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        if header:
            table = _split(header[1])
            if table == key:
                return number
            if table == key[:-1]:
                nearest = number
            continue
        assigned = re.match(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"))*)\s*=", line)
        if assigned:
            full = table + _split(assigned[1])
            if full == key:
                return number
            if full == key[: len(full)]:
                nearest = number
    return nearest


def _split(dotted: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _variable_key(name: str, tables: Mapping[str, Callable[[str], bool]]) -> Key | None:
    if not name.startswith(PREFIX):
        return None
    rest = name.removeprefix(PREFIX).lower()
    # A table's name may have an underscore of its own, so the longest one that fits is meant.
    for table in sorted(tables, key=len, reverse=True):
        key = rest.removeprefix(f"{table}_")
        if key not in (rest, ""):
            return table, key
    return None
