"""Mean and spread over seeds, and paired differences with their intervals. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n − 1); None for one value."""
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Method minus base, seed by seed."""

    mean: float
    interval: tuple[float, float] | None
    """95 % interval of the mean by the t-distribution with n − 1 degrees of freedom; None for one pair."""
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None without values."""
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired(method: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """The difference over the seeds both have; None without any.

    Args:
        method: value by seed.
        base: value by seed.
    """
    differences = [method[seed] - base[seed] for seed in sorted({*method} & {*base})]
    found = spread(differences)
    if found is None:
        return None
    if found.deviation is None:
        return Difference(found.mean, None, found.count)
    half = t_quantile(found.count - 1) * found.deviation / math.sqrt(found.count)
    return Difference(found.mean, (found.mean - half, found.mean + half), found.count)


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Half-width, in standard errors, of a two-sided interval."""
    # Imported here: it takes a while to load. It comes with scikit-learn.
    from scipy.stats import t

    return float(t.ppf((1.0 + level) / 2.0, degrees))
