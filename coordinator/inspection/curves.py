"""What a run's versions and measures look like over its rounds, thinned out to what a chart can show. Names nobody."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from coordinator.ports.records import VersionRecord
from coordinator.versions.privacy import PREFIX as PRIVACY_PREFIX
from coordinator.versions.quality import VERSION as MEASURED_VERSION
from ssd.updates.quality_sums import PREFIX as QUALITY_PREFIX

Json = Any
Point = tuple[int, float]
MOST_POINTS = 400
MOST_SERIES = 64
"""Names of evaluations come from workers: there is an end to them."""
_BOOKKEEPING = frozenset({"clients", "weight", "step_norm", "seconds", "bytes_up", "bytes_down"})
_COUNTS = ("_images", "_clients")


class Kind(Enum):
    """What a statistic tells of."""

    TRAINING = "training"
    REPRESENTATION = "representation"
    BOOKKEEPING = "bookkeeping"
    """Nothing that a curve is drawn of."""


def curves(versions: Iterable[VersionRecord], measured: Mapping[int, Mapping[str, float]]) -> dict[str, Json]:
    """Series of (version, value), by what they tell of.

    Args:
        versions: oldest first.
        measured: evaluations, by version.

    Returns:
        {"training": {name: points}, "representation": ..., "evaluation": ..., "left_out": number of series}.
    """
    training: dict[str, list[Point]] = {}
    representation: dict[str, list[Point]] = {}
    for version in versions:
        # Its round measured the version it started from.
        of = int(version.statistics.get(MEASURED_VERSION, 0))
        for name, value in version.statistics.items():
            match kind(name):
                case Kind.REPRESENTATION:
                    _add(representation, name.removeprefix(QUALITY_PREFIX), of, value)
                case Kind.TRAINING:
                    _add(training, name, version.number, value)
    evaluation: dict[str, list[Point]] = {}
    for number in sorted(measured):
        for name, value in measured[number].items():
            _add(evaluation, name, number, value)
    groups = {"training": training, "representation": representation, "evaluation": evaluation}
    left_out = sum(max(0, len(series) - MOST_SERIES) for series in groups.values())
    return {
        **{
            group: {name: thinned(series[name]) for name in sorted(series)[:MOST_SERIES]}
            for group, series in groups.items()
        },
        "left_out": left_out,
    }


def kind(name: str) -> Kind:
    """What the statistic of a committed round tells of."""
    if name.startswith(QUALITY_PREFIX):
        counts = name == MEASURED_VERSION or name.endswith(_COUNTS)
        return Kind.BOOKKEEPING if counts else Kind.REPRESENTATION
    bookkeeping = name in _BOOKKEEPING or name.startswith(PRIVACY_PREFIX)
    return Kind.BOOKKEEPING if bookkeeping else Kind.TRAINING


def _add(series: dict[str, list[Point]], name: str, at: int, value: float) -> None:
    if math.isfinite(value):
        series.setdefault(name, []).append((at, float(value)))


def thinned(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points, in order: first, last, and the lowest and highest of equal stretches between.

    So a single bad round is still there. `most` is at least 4.
    """
    if len(points) <= most:
        return points
    stretches = (most - 2) // 2
    inner = points[1:-1]
    kept = [points[0]]
    for index in range(stretches):
        stretch = inner[index * len(inner) // stretches : (index + 1) * len(inner) // stretches]
        low = min(stretch, key=lambda point: point[1])
        high = max(stretch, key=lambda point: point[1])
        kept += [low] if low == high else sorted((low, high))
    return [*kept, points[-1]]
