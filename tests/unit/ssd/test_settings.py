"""Settings from plain JSON: strict, and told everything at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

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


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ({}, "config.name is missing"),
        ({"name": 3}, "config.name must be a string, got 3"),
        ({"name": "a", "rate": "fast"}, "config.rate must be a number"),
        ({"name": "a", "rate": True}, "config.rate must be a number"),
        ({"name": "a", "rate": float("nan")}, "config.rate must be a number"),
        ({"name": "a", "on": 1}, "config.on must be true or false"),
        ({"name": "a", "limit": 1.5}, "config.limit must be a whole number"),
        ({"name": "a", "limit": True}, "config.limit must be a whole number"),
        ({"name": "a", "shape": "oval"}, "config.shape must be one of 'round', 'square', got 'oval'"),
        ({"name": "a", "window": [1]}, "config.window must be a list of 2 values"),
        ({"name": "a", "window": [1, "b"]}, "config.window[1] must be a number"),
        ({"name": "a", "inner": 3}, "config.inner must be an object"),
        ({"name": "a", "inner": None}, "config.inner must be an object"),
        ({"name": "a", "inner": {"size": 0}}, "config.inner: size must be positive"),
        ({"name": "a", "inner": {"sise": 1}}, "config.inner has no key 'sise'; did you mean size?"),
        ("text", "config must be an object"),
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
