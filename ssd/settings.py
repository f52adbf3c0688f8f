"""Plain JSON to frozen dataclasses, strictly, with every mistake reported at once.

A settings class is a frozen dataclass whose fields are numbers, strings, booleans, `Literal`s, tuples (of a fixed
length or, as `tuple[X, ...]`, of any), optionals of those, other settings classes, or mappings, which are taken as
they are. Unknown keys are refused with the nearest valid one; nothing is converted except a whole number to a float
where a float is asked for. The daemons read their own configuration with pydantic; this keeps `ssd` usable without it.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ssd.daemon.suggest import nearest

Json = Any
Settings = TypeVar("Settings")


class SettingsError(ValueError):
    """A configuration cannot be used; the message lists everything that is wrong with it."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(mistakes))


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Stands for a value that could not be read."""


_WRONG = _Wrong()


def read(cls: type[Settings], value: object, where: str = "config") -> Settings:
    """An instance of the settings class `cls` from a JSON object.

    Args:
        cls: a frozen dataclass.
        value: a JSON object; keys that are left out take the field's default.
        where: how messages name the object.

    Raises:
        SettingsError: with one entry for every mistake in the whole tree.

    """
    mistakes: list[str] = []
    result = _object(cls, value, where, mistakes)
    if mistakes or isinstance(result, _Wrong):
        raise SettingsError(mistakes)
    assert isinstance(result, cls)
    return result


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


def _object(cls: type, value: object, where: str, mistakes: list[str]) -> object:
    if not isinstance(value, Mapping):
        mistakes.append(f"{where} must be an object, got {_shown(value)}")
        return _WRONG
    kinds = get_type_hints(cls)
    declared = {field.name: field for field in fields(cls)}
    before = len(mistakes)
    mistakes += [unknown_key(str(key), list(declared), where) for key in value if key not in declared]
    arguments = {}
    for name, field in declared.items():
        if name in value:
            arguments[name] = _value(kinds[name], value[name], f"{where}.{name}", mistakes)
        elif field.default is MISSING and field.default_factory is MISSING:
            mistakes.append(f"{where}.{name} is missing")
    if len(mistakes) > before:
        return _WRONG
    try:
        return cls(**arguments)
    except ValueError as error:
        mistakes.append(f"{where}: {error}")
        return _WRONG


def _value(kind: Any, value: object, where: str, mistakes: list[str]) -> object:  # a type form
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return _object(kind, value, where, mistakes)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        # TOML has no null: an optional table is left out with `name = false`.
        if value is None or (value is False and isinstance(inner, type) and is_dataclass(inner)):
            return None
        return _value(inner, value, where, mistakes)
    if origin is Literal:
        if value in arguments:
            return value
        mistakes.append(f"{where} must be one of {', '.join(map(repr, arguments))}, got {_shown(value)}")
        return _WRONG
    if origin is Mapping:
        if isinstance(value, Mapping):
            return dict(value)
        mistakes.append(f"{where} must be a table, got {_shown(value)}")
        return _WRONG
    if origin is tuple and arguments[-1] is Ellipsis:
        if not isinstance(value, list | tuple):
            mistakes.append(f"{where} must be a list, got {_shown(value)}")
            return _WRONG
        return tuple(_value(arguments[0], each, f"{where}[{i}]", mistakes) for i, each in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            mistakes.append(f"{where} must be a list of {len(arguments)} values, got {_shown(value)}")
            return _WRONG
        return tuple(
            _value(k, v, f"{where}[{i}]", mistakes)
            for i, (k, v) in enumerate(zip(arguments, value, strict=True))
        )
    return _scalar(kind, value, where, mistakes)


def _scalar(kind: type, value: object, where: str, mistakes: list[str]) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int: True is not a batch size. NaN and infinity have no JSON form.
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits and not (isinstance(value, float) and not math.isfinite(value)):
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    mistakes.append(f"{where} must be {names[kind]}, got {_shown(value)}")
    return _WRONG


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
