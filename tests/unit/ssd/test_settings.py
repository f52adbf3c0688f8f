"""Settings from plain JSON: strict, and told everything at once."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.settings import SettingsError, merge, read, to_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    """A nested object."""

    size: int = 3

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be positive, got {self.size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    """One field of every kind."""

    name: str
    rate: float = 0.5
    shape: Literal["round", "square"] = "round"
    window: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    on: bool = True
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What has no form of its own."""

    many: tuple[Inner, ...] = ()
    free: Any = None
    table: Mapping[str, Any] = field(default_factory=dict)


def test_defaults_fill_in_and_everything_survives_a_round_trip() -> None:
    settings = read(Outer, {"name": "a", "rate": 2, "window": [0, 0.5], "other": {"size": 9}})
    assert settings == Outer(name="a", rate=2.0, window=(0.0, 0.5), other=Inner(size=9))
    assert isinstance(settings.rate, float)
    assert read(Outer, to_json(settings)) == settings
    assert to_json(settings)["window"] == [0.0, 0.5]


def test_false_leaves_an_optional_table_out_for_toml_has_no_null() -> None:
    assert read(Outer, {"name": "a", "other": False}).other is None
    for key in ("inner", "limit"):
        with pytest.raises(SettingsError, match=f"config.{key}"):
            read(Outer, {"name": "a", key: False})


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_numbers_keep_every_bit(rate: float, limit: int) -> None:
    """A declaration's digest is taken over what was read."""
    settings = read(Outer, {"name": "a", "rate": rate, "limit": limit})
    assert (struct.pack("d", settings.rate), settings.limit) == (struct.pack("d", rate), limit)


def test_a_list_of_objects_and_what_is_taken_as_it_is() -> None:
    value = {"many": [{"size": 1}, {"size": 2}], "free": {"a": [1, 2.0, None, {"b": "ü"}]}, "table": {"x": 1}}
    settings = read(Listed, value)
    assert settings == Listed(many=(Inner(size=1), Inner(size=2)), free=value["free"], table={"x": 1})
    assert isinstance(settings.free["a"][0], int)
    assert isinstance(settings.free["a"][1], float)
    with pytest.raises(SettingsError) as caught:
        read(Listed, {"many": [{}, {"sise": 1}, {"size": "x"}], "table": 3})
    assert set(caught.value.mistakes) == {
        "config.many[1] has no key 'sise'; did you mean size?",
        "config.many[2].size: must be a valid integer, not 'x'",
        "config.table: must be a table, not 3",
    }


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ({}, "config.name: is missing"),
        ({"name": 3}, "config.name: must be a valid string, not 3"),
        ({"name": "a", "rate": "fast"}, "config.rate: must be a valid number, not 'fast'"),
        ({"name": "a", "rate": True}, "config.rate: must be a valid number, not True"),
        ({"name": "a", "rate": float("nan")}, "config.rate: must be a finite number, not nan"),
        ({"name": "a", "on": 1}, "config.on: must be a valid boolean, not 1"),
        ({"name": "a", "limit": 1.5}, "config.limit: must be a valid integer, not 1.5"),
        ({"name": "a", "limit": True}, "config.limit: must be a valid integer, not True"),
        ({"name": "a", "shape": "oval"}, "config.shape: must be 'round' or 'square', not 'oval'"),
        ({"name": "a", "window": [1]}, "config.window[1]: is missing"),
        ({"name": "a", "window": [1, "b"]}, "config.window[1]: must be a valid number, not 'b'"),
        ({"name": "a", "window": [1, 2, 3]}, "config.window: must have at most 2 items, not 3"),
        ({"name": "a", "window": 1}, "config.window: must be a valid array, not 1"),
        ({"name": "a", "limit": dt.date(2020, 1, 1)}, "date is not JSON serializable"),
        ({"name": "a", "inner": 3}, "config.inner: must be a table, not 3"),
        ({"name": "a", "inner": None}, "config.inner: must be a table, not None"),
        ({"name": "a", "inner": {"size": 0}}, "config.inner: size must be positive"),
        ({"name": "a", "inner": {"sise": 1}}, "config.inner has no key 'sise'; did you mean size?"),
        ("text", "config: must be a table, not 'text'"),
    ],
)
def test_a_mistake_is_named_with_its_place(value: object, mistake: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(Outer, value)
    assert mistake in str(caught.value)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read(Outer, {"rate": [], "lmit": 3, "inner": {"size": -1}, "other": {"size": "x"}})
    assert len(caught.value.mistakes) == 5


def test_merging_goes_object_by_object_and_null_replaces() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": {"z": 3}, "c": 4}
    assert merge(base, {"a": {"y": 5}, "b": None, "d": 6}) == {
        "a": {"x": 1, "y": 5},
        "b": None,
        "c": 4,
        "d": 6,
    }
    assert base["a"] == {"x": 1, "y": 2}
