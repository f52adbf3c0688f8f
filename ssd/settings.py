"""Plain JSON to frozen dataclasses, strictly, with every mistake reported at once.

A settings class is a frozen dataclass whose fields are numbers, strings, booleans, `Literal`s, tuples (of a fixed
length or, as `tuple[X, ...]`, of any), optionals of those, other settings classes, or mappings, which are taken as
they are. pydantic does the checking: unknown keys are refused with the nearest valid one, and nothing is converted
except a whole number to a float where a float is asked for.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ssd.daemon.mistakes import mistake
from ssd.daemon.suggest import nearest

Json = Any
Settings = TypeVar("Settings")

# NaN and infinity have no JSON form.
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class SettingsError(ValueError):
    """A configuration cannot be used; the message lists everything that is wrong with it."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(mistakes))


def read(cls: type[Settings], value: object, where: str = "config") -> Settings:
    """An instance of the settings class `cls` from a JSON object.

    Args:
        cls: a frozen dataclass.
        value: a JSON object; keys that are left out take the field's default.
        where: how messages name the object.

    Raises:
        SettingsError: with one entry for every mistake in the whole tree.

    """
    kind: Any = cls
    try:
        # As JSON, where objects and lists are strictly what dataclasses and tuples are made of.
        text = json.dumps([_with_null(kind, value)])
        (settings,) = _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise SettingsError(
            [_sentence(cls, each, where) for each in error.errors(include_url=False)]
        ) from None
    except TypeError as error:
        raise SettingsError([f"{where}: {error}"]) from error
    assert isinstance(settings, cls)
    return settings


@cache
def _adapter(kind: Any) -> TypeAdapter[tuple[Any]]:
    # Inside a tuple, because pydantic takes no configuration for a dataclass itself.
    return TypeAdapter(tuple[kind], config=_STRICT)


def to_json(settings: object) -> dict[str, Json]:
    """The JSON object that `read` turns into an equal instance."""
    assert is_dataclass(settings)
    assert not isinstance(settings, type)
    return {name: _plain(value) for name, value in asdict(settings).items()}


def merge(base: Mapping[str, Json], over: Mapping[str, Json]) -> dict[str, Json]:
    """`base` with the values of `over` put on top, object by object."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if nested else value  # type: ignore[arg-type]  # `nested` implies it
    return merged


def unknown_key(key: str, known: list[str], where: str) -> str:
    """The sentence about a key that does not exist."""
    return f"{where} has no key {key!r}{nearest(key, known)}"


def _plain(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _with_null(kind: Any, value: Json) -> Json:
    """The value with null where an optional table is left out with `name = false`: TOML has no null."""
    table = _without_none(kind)
    if value is False and table is not kind and is_dataclass(table):
        return None
    if is_dataclass(table) and isinstance(value, Mapping):
        kinds = get_type_hints(table)
        return {key: _with_null(kinds.get(key), item) for key, item in value.items()}
    return value


def _without_none(kind: Any) -> Any:
    """`X` of `X | None`; any other type as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    return kind


def _sentence(cls: type, found: ErrorDetails, where: str) -> str:
    """A mistake, beginning with its place."""
    # The first part is the tuple's.
    place = found["loc"][1:]
    named = [where, *(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)]
    if found["type"] != "unexpected_keyword_argument":
        return f"{''.join(named)}: {mistake(found)}"
    table: Any = cls
    for part in place[:-1]:
        table = _without_none(get_args(table)[0] if isinstance(part, int) else get_type_hints(table)[part])
    return unknown_key(str(place[-1]), list(get_type_hints(table)), "".join(named[:-1]))
