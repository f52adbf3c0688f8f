"""Which clients a round invites: a pure function of seed, round and population."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from coordinator.core.policy import (
    QUANTILE_MARGIN,
    QUANTILE_MINIMUM,
    QUANTILE_WINDOW,
    Mode,
    RoundPolicy,
)
from ssd.random_stream import RandomStream


def sample(
    policy: RoundPolicy, round_number: int, attempt: int, population: Iterable[str]
) -> tuple[str, ...]:
    """The cohort, sorted by client id.

    Reproducible: depends on (seed, round) and the population, not on the attempt, so a retry keeps the cohort.
    Elastic: the attempt enters too, so a retry does not insist on the clients that just failed it, and
    `cohort_size * over_selection` clients are invited.
    """
    if policy.mode is Mode.REPRODUCIBLE:
        return _sample(("cohort", policy.seed, round_number), policy.cohort_size, frozenset(population))
    size = math.ceil(policy.cohort_size * policy.over_selection)
    return _sample(("cohort", policy.seed, round_number, attempt), size, frozenset(population))


# Asked after every event while a round waits for its clients. A frozenset remembers its hash and is equal to itself at
# once, so that of a population that did not change the answer costs nothing.
@lru_cache(maxsize=2)
def _sample(purpose: tuple[str | int, ...], size: int, population: frozenset[str]) -> tuple[str, ...]:
    ordered = sorted(population)
    if size >= len(ordered):
        return tuple(ordered)
    return tuple(sorted(RandomStream(*purpose).sample(ordered, size)))


def deadline_after(policy: RoundPolicy, report_seconds: Sequence[float]) -> float | None:
    """Seconds after opening at which an elastic attempt closes; None in reproducible mode."""
    if policy.mode is Mode.REPRODUCIBLE:
        return None
    recent = sorted(report_seconds[-QUANTILE_WINDOW:])
    if policy.deadline_quantile is None or len(recent) < QUANTILE_MINIMUM:
        return policy.deadline_seconds
    rank = min(len(recent) - 1, math.ceil(policy.deadline_quantile * len(recent)))
    return min(policy.deadline_seconds, recent[rank] * QUANTILE_MARGIN)
