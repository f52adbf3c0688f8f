"""Who masks with whom, and how many must answer: the complete graph, and the k-regular ring for large cohorts.

On the complete graph every participant masks with and shares to all others (Bonawitz et al., CCS 2017). On the ring
(Bell et al., CCS 2020) the participants stand in an order nobody could foresee, and each is joined to the k/2 before
and the k/2 after it; (k, t) are searched for as Google's `graph_parameter_finder` does it, with one condition more
under `active`. Everything here is recomputed by every participant, so all of it is exact or far from any border:
fractions are whole parts per million.

With n participants, A = the corrupt ones (the assumed fraction, at least one if the fraction is not zero) and
D = the tolerated dropouts (rounded down).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from ssd.secagg.numbers.prg import CHUNK_NBYTES, keystream

PPM = 1_000_000
SECURITY_BITS = 40
CORRECTNESS_BITS = 20
SMALLEST_RING = 65
"""Below it the search's bounds mean nothing, and the complete graph is cheap."""
COMPLETE_UP_TO = 200
"""The cohort up to which the complete graph is used unless the operator wants otherwise."""
MAX_PARTICIPANTS = 100_000
SEED_NBYTES = 32


class Level(StrEnum):
    """What is promised."""

    PASSIVE = "passive"
    """Against a coordinator that follows the protocol and reads everything, and A corrupt participants."""
    ACTIVE = "active"
    """Also against a coordinator that lies."""


class InfeasibleGraph(ValueError):
    """No threshold is both safe and alive; the text says what to change."""


class GraphChoice(NamedTuple):
    """k neighbours for everyone, and t of a participant's k + 1 share holders (itself included) must answer."""

    k: int
    t: int


def corrupt(n: int, gamma_ppm: int) -> int:
    """A: the corrupt participants the parameters must withstand; never 0 when any are assumed."""
    return max(n * gamma_ppm // PPM, 1 if gamma_ppm else 0)


def dropouts(n: int, delta_ppm: int) -> int:
    """D: how many participants may drop out of a round, over all its phases."""
    return n * delta_ppm // PPM


def fewest_survivors(n: int, delta_ppm: int) -> int:
    """The smallest set whose sum may be opened: ceil((1 - delta) * n)."""
    return n - dropouts(n, delta_ppm)


def honest_others(n: int, corrupt_ones: int, delta_ppm: int) -> int:
    """How many honest participants beside oneself are in the smallest sum that n participants may open."""
    return fewest_survivors(n, delta_ppm) - corrupt_ones - 1


def smallest_roster(corrupt_ones: int, delta_ppm: int, least_others: int) -> int:
    """The fewest participants of a roster at level `active`, on the complete graph, of which so many may be corrupt.

    They have a threshold that is safe and alive, and the smallest sum has `least_others` honest ones beside oneself.
    """
    n = 2
    while (n + corrupt_ones) // 2 + 1 > fewest_survivors(n, delta_ppm) or (
        honest_others(n, corrupt_ones, delta_ppm) < max(least_others, 1)
    ):
        n += 1
    return n


def threshold_complete(n: int, gamma_ppm: int, delta_ppm: int, level: str) -> int:
    """The threshold t for the complete graph: the smallest safe one, and a majority where the dropouts leave room for it.

    passive: t > A. active: 2t > n + A, so that no two sets of answers to two different stories can both reach t.
    Both: t <= n - D, and at least two honest participants in every sum that may be opened.

    Raises:
        InfeasibleGraph: no t fits.
        ValueError: an argument is out of range.
    """
    _check(n, gamma_ppm, delta_ppm)
    a, most = corrupt(n, gamma_ppm), fewest_survivors(n, delta_ppm)
    least = (n + a) // 2 + 1 if Level(level) is Level.ACTIVE else max(a + 1, min(n // 2 + 1, most))
    t = max(least, 2)
    if t > most:
        raise InfeasibleGraph(
            f"{n} participants of which {a} are assumed corrupt need a threshold of {t} ({level}), but only {most} are "
            f"certain to remain when {n - most} drop out: tolerate fewer dropouts, assume fewer corrupt participants, "
            "or take more participants"
        )
    if most - a < 2:
        raise InfeasibleGraph(
            f"of {n} participants {n - most} may drop out and {a} are assumed corrupt, so a sum could hold the update "
            "of one honest participant alone: take more participants, tolerate fewer dropouts or assume fewer corrupt"
        )
    return t


def search(n: int, gamma_ppm: int, delta_ppm: int, level: str) -> GraphChoice:
    """The cheapest safe ring for n participants; the complete graph below 65, or where no ring is safe.

    Raises:
        InfeasibleGraph: there is no ring and the complete graph is not feasible either.
        ValueError: an argument is out of range.
    """
    _check(n, gamma_ppm, delta_ppm)
    active = Level(level) is Level.ACTIVE
    if n >= SMALLEST_RING:
        a, d = corrupt(n, gamma_ppm), dropouts(n, delta_ppm)
        found = search_ring(n, a, d, lying=active, chosen_dropouts=active)
        if found is not None:
            return found
    return GraphChoice(n - 1, threshold_complete(n, gamma_ppm, delta_ppm, level))


@lru_cache(maxsize=64)
def search_ring(n: int, a: int, d: int, *, lying: bool, chosen_dropouts: bool) -> GraphChoice | None:
    """The first even k, with its smallest t, that fulfils conditions (1) to (6); None if no k < n - 1 does.

    (1) the honest survivors stay connected but for 2**-41; (2) no participant has more than t1 corrupt neighbours but
    for 2**-41 over all; (3) all keep t2 living neighbours but for 2**-20; (4) t1 < t <= t2, where against a lying
    coordinator 2t must exceed k and the corrupt neighbours; (5) t >= 2; (6) a coordinator that chooses who "dropped"
    cannot cut out an arc but for 2**-41.

    Args:
        n: participants.
        a: corrupt ones.
        d: dropouts.
        lying: the coordinator may tell different participants different stories ("semi-malicious").
        chosen_dropouts: ask for condition (6) as well.
    """
    tail = 2.0 ** -(SECURITY_BITS + 1)
    for k in range(2, n - 1, 2):
        if _log_disconnected(n, k, a + d) >= -(SECURITY_BITS + 1) * math.log(2):
            continue
        corrupt_neighbours = _smallest_exceeded(n, a, k, tail / n)
        living_neighbours = _largest_undercut(n, n - d, k, 2.0**-CORRECTNESS_BITS / n)
        above = corrupt_neighbours
        if lying:
            above = math.ceil((corrupt_neighbours + k - 1.25) / 2)
        # Condition (6) grows easier with t, so the smallest t that fulfils it is the one to take.
        for t in range(max(above + 1, 2), living_neighbours + 1):
            if not chosen_dropouts or _arc_probability(n, k, t, a, d) < tail:
                return GraphChoice(k, t)
    return None


def ring_order(seed: bytes, n: int) -> list[int]:
    """A uniform permutation of 0..n-1: Fisher-Yates from the end, driven by AES-CTR under the 32-byte seed.

    Each draw below m takes the stream's next little-endian 64-bit word, skipping words that would make the remainder
    modulo m uneven.
    """
    if len(seed) != SEED_NBYTES:
        raise ValueError(f"a seed of {len(seed)} bytes, not {SEED_NBYTES}")
    words = _Words(seed)
    order = list(range(n))
    for last in range(n - 1, 0, -1):
        other = words.below(last + 1)
        order[last], order[other] = order[other], order[last]
    return order


def neighbours(order: Sequence[int], k: int, index: int) -> list[int]:
    """Whom participant `index` is joined to, sorted: the k/2 on either side of it, or all others if k >= n - 1.

    Raises:
        ValueError: k is odd or not positive, or the participant does not stand in the order.
    """
    n = len(order)
    place = list(order).index(index)
    if k >= n - 1:
        return sorted(other for other in order if other != index)
    if k < 2 or k % 2:
        raise ValueError(f"{k} neighbours cannot be half before and half after")
    half = k // 2
    return sorted(order[(place + step) % n] for step in range(-half, half + 1) if step)


class _Words:
    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._position = 0
        self._block = b""

    def below(self, m: int) -> int:
        limit = (1 << 64) - (1 << 64) % m
        while True:
            word = self._next()
            if word < limit:
                return word % m

    def _next(self) -> int:
        within = self._position % CHUNK_NBYTES
        if within % 4096 == 0:
            self._block = keystream(self._seed, self._position, 4096)
        word = int.from_bytes(self._block[within % 4096 : within % 4096 + 8], "little")
        self._position += 8
        return word


def _check(n: int, gamma_ppm: int, delta_ppm: int) -> None:
    if not 2 <= n <= MAX_PARTICIPANTS:
        raise ValueError(
            f"{n} participants; a sum needs at least 2, and at most {MAX_PARTICIPANTS} are provided for"
        )
    for name, fraction in (("corrupt", gamma_ppm), ("dropped", delta_ppm)):
        if not 0 <= fraction < PPM:
            raise ValueError(f"{fraction} ppm {name} participants are no fraction below one")


def _log_disconnected(n: int, k: int, bad: int) -> float:
    """The logarithm of the chance that two runs of k/2 bad nodes cut the ring."""
    if k > bad:
        return -math.inf
    return (
        math.log(n)
        + math.log(n - k - 1)
        - math.log(2)
        + math.lgamma(bad + 1)
        + math.lgamma(n - k + 1)
        - math.lgamma(n + 1)
        - math.lgamma(bad - k + 1)
    )


def _smallest_exceeded(n: int, marked: int, drawn: int, chance: float) -> int:
    """The smallest t with P[X > t] <= chance, X the marked ones among `drawn` of n."""
    upper = 0.0
    for x in range(min(drawn, marked), -1, -1):
        upper += _hypergeometric(n, marked, drawn, x)
        if upper > chance:
            return x
    return 0


def _largest_undercut(n: int, marked: int, drawn: int, chance: float) -> int:
    """The largest t with P[X < t] <= chance, X the marked ones among `drawn` of n."""
    lower = 0.0
    for x in range(drawn + 1):
        lower += _hypergeometric(n, marked, drawn, x)
        if lower > chance:
            return x
    return drawn


def _arc_probability(n: int, k: int, t: int, a: int, d: int) -> float:
    """Condition (6): the smaller of what the shares and what the dropout budget leave to who picks the dropouts.

    To cut the ring two gaps of k/2 neighbours must be corrupt or declared dropped; the last honest node of an arc
    must still yield t shares, of which at most k/2 lie in the arc and one is its own; and only D may be declared.
    """
    half = k // 2
    pairs = n * (n - 1) / 2
    by_shares = pairs * _at_least(n, a, half, t - half - 1) ** 2
    by_budget = pairs * _at_least(n, a, k, k - d)
    return min(by_shares, by_budget)


def _at_least(n: int, marked: int, drawn: int, least: int) -> float:
    return math.fsum(_hypergeometric(n, marked, drawn, x) for x in range(max(least, 0), drawn + 1))


def _hypergeometric(n: int, marked: int, drawn: int, x: int) -> float:
    if x < 0 or x > marked or drawn - x > n - marked:
        return 0.0
    return math.exp(_log_choose(marked, x) + _log_choose(n - marked, drawn - x) - _log_choose(n, drawn))


@lru_cache(maxsize=1 << 16)
def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
