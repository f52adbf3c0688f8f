"""A run's rounds and measures as scalars for a tracking tool. Pure; of clients it names nobody.

round/…            seconds, bytes, clients and attempts of a committed round, at its number
training/…         means over its clients: loss and the like
representation/…   quality that the round measured, at the version it measured
privacy/…          what differential privacy has cost so far
evaluation/…       what was measured of a version
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.ports.figures import MEASURED_VERSION, Kind, kind_of

Json = Any
MOST_TAGS = 1000
"""Names of evaluations come from workers: there is an end to them."""
MOST_TAG = 200
"""Characters of one."""


@dataclass(frozen=True, slots=True)
class Row:
    """Scalars at one step."""

    step: int
    at: float
    """Unix seconds; 0: not known."""
    values: Mapping[str, float]


def rows(rounds: Iterable[Mapping[str, Json]], evaluations: Iterable[Mapping[str, Json]]) -> list[Row]:
    """Everything there is, by step.

    Args:
        rounds: as `ssd-coordinator rounds --format json` has them, in any order.
        evaluations: as `ssd-coordinator evaluations --format json` has them.
    """
    committed = sorted(
        (each for each in rounds if each["outcome"] == "committed"), key=lambda each: each["round"]
    )
    ended = {each["round"]: float(each["closed_at"]) for each in committed}
    found = [row for each in committed for row in _of_round(each)]
    for each in evaluations:
        version = int(each["version"])
        values = {f"evaluation/{name}": _number(value) for name, value in each["values"].items()}
        found.append(Row(version, ended.get(version, 0.0), values))
    tags: set[str] = set()
    return [row for row in (_kept(row, tags) for row in found) if row.values]


def _of_round(record: Mapping[str, Json]) -> Iterable[Row]:
    number, at = int(record["round"]), float(record["closed_at"])
    values = {
        "round/attempt": float(record["attempt"]),
        "round/cohort_size": float(record["cohort_size"]),
        "round/accepted": float(record["accepted"]),
    }
    measured: dict[str, float] = {}
    told = dict(record["statistics"])
    version = told.pop(MEASURED_VERSION, None)
    for name, value in told.items():
        kind = kind_of(name)
        group = measured if kind is Kind.QUALITY else values
        group[f"{kind.value}/{kind.short(name)}"] = _number(value)
    yield Row(number, at, values)
    if version is not None:
        yield Row(int(version), at, measured)


def _number(value: Json) -> float:
    """What was not finite came as null: JSON has no NaN."""
    return math.nan if value is None else float(value)


def _kept(row: Row, tags: set[str]) -> Row:
    """Finite numbers alone, under names that are not too long, nor too many."""
    values = {}
    for name, value in row.values.items():
        tag = name[:MOST_TAG]
        if not math.isfinite(value) or (tag not in tags and len(tags) >= MOST_TAGS):
            continue
        tags.add(tag)
        values[tag] = value
    return Row(row.step, row.at, values)
