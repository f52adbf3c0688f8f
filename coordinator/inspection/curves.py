"""What a run's versions and measures look like over its rounds, thinned out to what a chart can show. Names nobody."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.ports.figures import MEASURED_VERSION, Kind, kind_of
from coordinator.ports.records import VersionRecord

Json = Any
Point = tuple[int, float]
MOST_POINTS = 400
MOST_SERIES = 64
"""Names of evaluations come from workers: there is an end to them."""
_COUNTS = ("_images", "_clients")


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
        for name, value in version.figures.losses.items():
            _add(training, name, version.number, value)
        if quality := version.figures.quality:
            for name, value in quality.measures.items():
                if not name.endswith(_COUNTS):
                    _add(representation, name, quality.version, value)
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


def drawn(name: str) -> bool:
    """Whether a curve is drawn of the figure of this name: of losses, and of representation measures."""
    kind = kind_of(name)
    counts = name == MEASURED_VERSION or name.endswith(_COUNTS)
    return kind is Kind.LOSS or (kind is Kind.QUALITY and not counts)


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
