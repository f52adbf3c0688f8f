"""Schedules: their values by hand, and clear words for what is not one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.method.schedule import ScheduleError, resolve


def series(schedule: object, rounds: int) -> list[float]:
    return [resolve({"x": schedule}, now, rounds)["x"] for now in range(1, rounds + 1)]


def test_a_number_is_constant() -> None:
    assert series(0.1, 3) == [0.1, 0.1, 0.1]
    assert series({"kind": "constant", "value": 2}, 2) == [2.0, 2.0]
    assert resolve({}, 1, 1) == {}


def test_linear_by_hand() -> None:
    assert series({"kind": "linear", "start": 1.0, "end": 0.0}, 4) == [1.0, 0.75, 0.5, 0.25]


def test_cosine_by_hand() -> None:
    values = series({"kind": "cosine", "start": 2.0}, 4)
    assert values == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])
    assert series({"kind": "cosine", "start": 2.0, "end": 2.0}, 3) == [2.0] * 3


def test_steps_by_hand() -> None:
    assert series({"kind": "step", "start": 1.0, "factor": 0.5, "every": 2}, 5) == [1, 1, 0.5, 0.5, 0.25]
    assert series({"kind": "step", "start": 1.0, "factor": 0.1, "at": [2, 4]}, 4) == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )


def test_exponential_by_hand() -> None:
    assert series({"kind": "exponential", "start": 8.0, "rate": 0.5}, 4) == [8.0, 4.0, 2.0, 1.0]
    floored = {"kind": "exponential", "start": 8.0, "rate": 0.5, "floor": 3.0}
    assert series(floored, 4) == [8.0, 4.0, 3.0, 3.0]
    assert series({"kind": "exponential", "start": 2.0, "rate": 0}, 3) == [2.0, 0.0, 0.0]
    with pytest.raises(ScheduleError, match="rate must not be negative"):
        series({"kind": "exponential", "start": 1.0, "rate": -1.0}, 2)


def test_warm_up_climbs_to_the_start() -> None:
    for schedule in (
        {"kind": "linear", "start": 1.0, "end": 0.0},
        {"kind": "cosine", "start": 1.0},
        {"kind": "step", "start": 1.0, "factor": 0.5, "every": 1},
        {"kind": "exponential", "start": 1.0, "rate": 0.5},
    ):
        plain = series(schedule, 4)
        warmed = series({**schedule, "warmup_rounds": 4}, 8)
        assert warmed == pytest.approx([0.25, 0.5, 0.75, 1.0, *plain])


def test_rounds_beyond_the_last_keep_its_value() -> None:
    schedule = {"x": {"kind": "linear", "start": 1.0, "end": 0.0}}
    assert resolve(schedule, 9, 4) == resolve(schedule, 4, 4) == {"x": 0.25}


@given(
    st.sampled_from(["cosine", "linear"]),
    st.floats(-10, 10),
    st.floats(-10, 10),
    st.integers(0, 20),
    st.integers(1, 30),
)
@settings(max_examples=200, deadline=None)
def test_values_stay_between_the_ends(kind: str, start: float, end: float, warmup: int, rounds: int) -> None:
    values = series({"kind": kind, "start": start, "end": end, "warmup_rounds": warmup}, rounds)
    lowest, highest = min(start, end, 0.0 if warmup else start), max(start, end, 0.0 if warmup else start)
    assert all(lowest - 1e-9 <= value <= highest + 1e-9 for value in values)
    if warmup < rounds:
        assert values[warmup] == pytest.approx(start), "the round after the warm-up has the full value"


@pytest.mark.parametrize(
    ("schedule", "word"),
    [
        ("0.1", "value"),
        (None, "value"),
        (True, "value"),
        (math.nan, "value"),
        ({"value": 1}, "kind"),
        ({"kind": "exponential"}, "exponential"),
        ({"kind": "constant"}, "value"),
        ({"kind": "constant", "value": math.inf}, "value"),
        ({"kind": "constant", "value": 1, "warmup_rounds": 1}, "warmup_rounds"),
        ({"kind": "cosine"}, "start"),
        ({"kind": "cosine", "start": "a"}, "start"),
        ({"kind": "cosine", "start": 1, "ende": 0}, "ende"),
        ({"kind": "cosine", "start": 1, "warmup_rounds": -1}, "warmup_rounds"),
        ({"kind": "cosine", "start": 1, "warmup_rounds": 1.5}, "warmup_rounds"),
        ({"kind": "linear", "start": 1}, "end"),
        ({"kind": "step", "start": 1, "factor": 0.5}, "every"),
        ({"kind": "step", "start": 1, "factor": 0.5, "every": 1, "at": [1]}, "every"),
        ({"kind": "step", "start": 1, "factor": 0.5, "every": 0}, "every"),
        ({"kind": "step", "start": 1, "factor": 0.5, "at": 3}, "at"),
        ({"kind": "step", "start": 1, "factor": 0.5, "at": [0]}, "at"),
        ({"kind": "step", "start": 1, "factor": None, "every": 1}, "factor"),
    ],
)
def test_a_mistake_is_named(schedule: object, word: str) -> None:
    with pytest.raises(ScheduleError, match="'learning_rate'") as caught:
        resolve({"learning_rate": schedule}, 1, 10)
    assert word in str(caught.value)


@pytest.mark.parametrize(("now", "rounds"), [(0, 1), (-1, 1), (1, 0)])
def test_there_is_no_round_zero(now: int, rounds: int) -> None:
    with pytest.raises(ScheduleError):
        resolve({"x": 1}, now, rounds)


@pytest.mark.parametrize(
    "schedules",
    [
        5,
        "lr",
        [["lr", 1]],
        {"lr": 10**400},
        {"lr": {"kind": ["x"]}},
        {"lr": {"kind": {}}},
        {"lr": {"kind": "exponential", "start": 0.1, "rate": 10.0}},
        {"lr": {"kind": "exponential", "start": 1e308, "rate": 1.5}},
        {"lr": {"kind": "step", "start": 1e308, "factor": 1e10, "every": 1}},
        {"lr": {"kind": "linear", "start": -1.7e308, "end": 1.7e308}},
        {"lr": {"kind": "step", "start": 1.0, "factor": 0.5, "at": [10**400, "x"]}},
    ],
)
def test_what_a_stranger_sends_is_refused_and_ends_nothing(schedules: object) -> None:
    with pytest.raises(ScheduleError):
        resolve(schedules, 500, 1000)  # type: ignore[arg-type]  # a declaration that was received
