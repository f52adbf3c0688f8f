"""Per-round values such as learning rates: declared once, resolved by the coordinator, sent as numbers.

Only the coordinator evaluates a schedule and every task carries the result, so no two hosts can disagree
about a cosine. A schedule is a number, or an object with a `kind`:

    {"kind": "constant", "value": v}
    {"kind": "cosine", "start": a, "end": b = 0}
    {"kind": "linear", "start": a, "end": b}
    {"kind": "step", "start": a, "factor": f, "every": n}       times f after every n rounds
    {"kind": "step", "start": a, "factor": f, "at": [r, ...]}   times f from each of these rounds on
    {"kind": "exponential", "start": a, "rate": q}              a times q to the number of rounds before
    {"kind": "exponential", "start": a, "rate": q, "floor": b}  the same, but never below b

All but `constant` take `warmup_rounds` (default 0): during those the value climbs from start / warmup_rounds
to start in equal steps, and the schedule proper covers the rounds after them. Cosine and linear have `start`
in their first round and would reach `end` one round after the last, so no round is spent at a rate of zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_FIELDS = {
    "constant": ({"value"}, set()),
    "cosine": ({"start"}, {"end", "warmup_rounds"}),
    "linear": ({"start", "end"}, {"warmup_rounds"}),
    "step": ({"start", "factor"}, {"every", "at", "warmup_rounds"}),
    "exponential": ({"start", "rate"}, {"floor", "warmup_rounds"}),
}


class ScheduleError(ValueError):
    """A schedule is not well formed; the message names it."""


def resolve(schedules: Mapping[str, Any], round: int, rounds: int) -> dict[str, float]:  # noqa: A002 - the field's word
    """The value of every schedule in this round (1-based, of `rounds`).

    Rounds beyond the last keep the last round's value.

    Raises:
        ScheduleError: a schedule is not well formed, or the round is not at least 1.
    """
    if rounds < 1 or round < 1:
        raise ScheduleError(f"there is no round {round} of {rounds}")
    if not isinstance(schedules, Mapping):  # a declaration comes from a stranger
        raise ScheduleError("schedules are a table of name and schedule")
    return {name: _finite(name, schedule, min(round, rounds), rounds) for name, schedule in schedules.items()}


def _finite(name: str, schedule: object, now: int, rounds: int) -> float:
    """The value, which every combination of finite numbers does not have."""
    try:
        value = _value(name, schedule, now, rounds)
    except (OverflowError, TypeError) as error:
        raise ScheduleError(f"schedule {name!r} has no value in round {now}: {error}") from None
    if not math.isfinite(value):
        raise ScheduleError(f"schedule {name!r} is not finite in round {now}")
    return value


def _value(name: str, schedule: object, now: int, rounds: int) -> float:
    if not isinstance(schedule, Mapping):
        return _number(name, "value", schedule)
    kind = schedule.get("kind")
    if kind not in _FIELDS:
        raise ScheduleError(f"schedule {name!r}: unknown kind {kind!r}; there are {', '.join(_FIELDS)}")
    required, optional = _FIELDS[kind]
    given = set(schedule) - {"kind"}
    if missing := required - given:
        raise ScheduleError(f"schedule {name!r} ({kind}): {', '.join(sorted(missing))} missing")
    if unknown := given - required - optional:
        raise ScheduleError(f"schedule {name!r} ({kind}): unknown {', '.join(sorted(map(str, unknown)))}")
    if kind == "constant":
        return _number(name, "value", schedule["value"])
    start = _number(name, "start", schedule["start"])
    warmup = _count(name, "warmup_rounds", schedule.get("warmup_rounds", 0), least=0)
    if kind == "step":
        value = start * _number(name, "factor", schedule["factor"]) ** _steps(name, schedule, now, warmup)
    elif kind == "exponential":
        value = start * _rate(name, schedule) ** max(now - warmup - 1, 0)
        if "floor" in schedule:
            value = max(value, _number(name, "floor", schedule["floor"]))
    else:
        end = _number(name, "end", schedule.get("end", 0.0))
        progress = max(now - warmup - 1, 0) / max(rounds - warmup, 1)
        share = progress if kind == "linear" else (1.0 - math.cos(math.pi * progress)) / 2.0
        value = start + (end - start) * share
    return start * now / warmup if now <= warmup else value


def _steps(name: str, schedule: Mapping[str, Any], now: int, warmup: int) -> int:
    if ("every" in schedule) == ("at" in schedule):
        raise ScheduleError(f"schedule {name!r} (step): exactly one of every and at is needed")
    if "every" in schedule:
        every = _count(name, "every", schedule["every"], least=1)
        return max(now - warmup - 1, 0) // every
    if not isinstance(schedule["at"], list | tuple):
        raise ScheduleError(f"schedule {name!r}: at must be a list of rounds")
    return sum(now >= _count(name, "at", first, least=1) for first in schedule["at"])


def _rate(name: str, schedule: Mapping[str, Any]) -> float:
    rate = _number(name, "rate", schedule["rate"])
    if rate < 0.0:
        raise ScheduleError(f"schedule {name!r}: rate must not be negative, not {rate!r}")
    return rate


def _number(name: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ScheduleError(f"schedule {name!r}: {key} must be a finite number, not {value!r}")
    return float(value)


def _count(name: str, key: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ScheduleError(f"schedule {name!r}: {key} must be an integer of at least {least}, not {value!r}")
    return value
