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
    """95 % interval of the mean by the t-distribution; None for one pair."""
    count: int
    error: float | None = None
    """Standard error of the mean; None for one pair."""
    degrees: int = 0
    """Degrees of freedom of the error."""


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
    return _difference(found.mean, found.count, found.deviation / math.sqrt(found.count), found.count - 1)


def blocked(values: Mapping[str, Mapping[int, float]], method: str, against: str) -> Difference | None:
    """The same difference with an error that all methods of a table share: a randomised-block model.

    A value is the sum of its method's effect, its seed's effect and an error that is as large for every method. With m
    methods and n seeds the error has (m - 1) (n - 1) degrees of freedom, where a pair alone has n - 1.

    Args:
        values: by method, then seed; seeds that some method lacks are left out, as are methods without any.
        method: a method of `values`.
        against: the one it is compared with.
    """
    rows = {name: each for name, each in values.items() if each}
    if not {method, against} <= rows.keys():
        return None
    seeds = sorted(set.intersection(*(set(each) for each in rows.values())))
    if len(seeds) < 2:
        return None
    methods, count = len(rows), len(seeds)
    means = {name: fmean(each[seed] for seed in seeds) for name, each in rows.items()}
    blocks = {seed: fmean(each[seed] for each in rows.values()) for seed in seeds}
    whole = fmean(means.values())
    rest = math.fsum(
        (each[seed] - means[name] - blocks[seed] + whole) ** 2
        for name, each in rows.items()
        for seed in seeds
    )
    degrees = (methods - 1) * (count - 1)
    return _difference(
        means[method] - means[against], count, math.sqrt(2.0 * rest / degrees / count), degrees
    )


def _difference(mean: float, count: int, error: float, degrees: int) -> Difference:
    half = t_quantile(degrees) * error
    return Difference(mean, (mean - half, mean + half), count, error, degrees)


def p_value(found: Difference | None, threshold: float) -> float | None:
    """Two-sided, of the difference being `threshold`; None without an error."""
    if found is None or found.error is None:
        return None
    if found.error == 0.0:
        return 1.0 if found.mean == threshold else 0.0
    from scipy.stats import t

    return float(2.0 * t.sf(abs(found.mean - threshold) / found.error, found.degrees))


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for being several (Holm, 1979): of the chance that *any* of them misleads."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def seeds_needed(found: Difference | None, threshold: float) -> int | None:
    """How many seeds it takes until a difference as large as the one seen, with the spread seen, excludes `threshold`.

    None without a spread, or if more than 1,000 would not do.
    """
    if found is None or found.error is None:
        return None
    deviation, gap = found.error * math.sqrt(found.count), abs(found.mean - threshold)
    return next((n for n in range(2, 1001) if t_quantile(n - 1) * deviation / math.sqrt(n) < gap), None)


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Half-width, in standard errors, of a two-sided interval."""
    # Imported here: it takes a while to load. It comes with scikit-learn.
    from scipy.stats import t

    return float(t.ppf((1.0 + level) / 2.0, degrees))
