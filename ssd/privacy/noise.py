"""Differential privacy for one client's whole update: clipping, Skellam noise on integers, and what it costs.

Two places for the noise, one switch. `distributed`: every participant adds its part before masking, scaled so that the
fewest honest survivors together add the target; the coordinator never sees a sum without it. `central`: the
coordinator, which is trusted with the sum, adds it all. Either way every client counts the same (weight 1), and nothing
may leave a client beside its clipped update: averaged BatchNorm buffers would be outside the noise and are refused
(`obstacles`); statistics and representation-quality sums would be too, and are not reported at all (`left_out`).

    query      the sum of integer vectors, one a client; with s scale bits and d values, one client's has an L2 norm of
               at most D2 = C * 2**s + sqrt(d), as rounding moves each value by less than 1, and an L1 norm of at most
               D1 = min(sqrt(d) * D2, D2**2)
    noise      Skellam (the difference of two Poisson variables) of variance V = (z * D2)**2, in all
    cost       Renyi divergence of order a (a = 2, 3, ...; Agarwal, Kairouz and Liu, NeurIPS 2021, arXiv 2110.04995):
               a * D2**2 / (2 V) + min(((2 a - 1) * D2**2 + 6 * D1) / (4 V**2), 3 * D1 / (2 V))

Reduction modulo 2**m comes after the noise and is post-processing: a sum that wraps is wrong, not less private.
numpy's Poisson sampler works in floating point and its generator is no cryptographic one; it is seeded with 32 fresh
secret bytes. The guarantee is one of exact sampling, so it is engineering grade, not proven to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.privacy.settings import NoisePlace, PrivacyRefused, PrivacySettings

ORDERS = tuple(range(2, 257))
DRAW_VARIANCE = 2.0**36
"""Largest of one draw; more is the sum of several, which is Skellam again. numpy's Poisson sampler accepts by a difference of numbers of this magnitude times 25, in float64: far
below, the error is some 1e-4 of a probability; at 2**48 the variance is 5 % off, at 2**50 it is 10 %."""
MAX_VARIANCE = 16 * DRAW_VARIANCE
"""Of what one party adds; more would take too long."""
_SEED_NBYTES = 32
_CLIP_SLACK = 1.0 - 1e-6
"""Neither float32 rounding nor another order of summation may bring an update over the bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisePlan:
    """The integers' bounds and variances of one run."""

    settings: PrivacySettings
    dimension: int
    scale_bits: int
    fewest_honest: int
    """The smallest number of honest participants whose noise may be in a sum; 1 where the coordinator adds it."""

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.fewest_honest < 1:
            raise PrivacyRefused(f"{self.dimension} values, {self.fewest_honest} honest participants")
        if self.settings.place is NoisePlace.CENTRAL and self.fewest_honest != 1:
            raise PrivacyRefused("the coordinator alone adds central noise: min_honest is 1")
        if not self.local_variance <= MAX_VARIANCE:
            raise PrivacyRefused(
                f"noise with a variance of {self.local_variance:.3g} units for {self.dimension} values is beyond the "
                "sampler: lower the noise multiplier"
            )

    @classmethod
    def of(cls, settings: PrivacySettings, dimension: int, scale_bits: int) -> NoisePlan:
        """The plan of a run with these settings.

        Raises:
            PrivacyRefused: the noise cannot be drawn.
        """
        return cls(
            settings=settings, dimension=dimension, scale_bits=scale_bits, fewest_honest=settings.min_honest
        )

    @property
    def l2(self) -> float:
        """D2, in units of 2**-scale_bits."""
        return math.ldexp(self.settings.clip_norm, self.scale_bits) + math.sqrt(self.dimension)

    @property
    def l1(self) -> float:
        """D1, in units of 2**-scale_bits; an integer's magnitude is at most its square."""
        return min(math.sqrt(self.dimension) * self.l2, self.l2**2)

    @property
    def variance(self) -> float:
        """V: of each value of the sum, at least."""
        return (self.settings.noise_multiplier * self.l2) ** 2

    @property
    def local_variance(self) -> float:
        """What every participant adds: the fewest honest ones reach V, more exceed it."""
        return self.variance / self.fewest_honest

    def headroom(self, participants: int, wrap_chance: float = 1e-4) -> int:
        """How far noise may carry a sum of `participants`, but for `wrap_chance` over all values.

        Bernstein's bound for a Skellam variable of variance v: P[|X| >= x] <= 2 exp(-x**2 / (2 (v + x / 3))).
        """
        v, log_tail = participants * self.local_variance, math.log(2 * self.dimension / wrap_chance)
        return math.ceil(log_tail / 3 + math.sqrt((log_tail / 3) ** 2 + 2 * v * log_tail))

    def renyi(self, order: int) -> float:
        """The Renyi divergence one round costs at an integer order >= 2."""
        v, l1, l2 = self.variance, self.l1, self.l2
        correction = min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * v**2), 3 * l1 / (2 * v))
        return order * l2**2 / (2 * v) + correction


def clip_update(delta: NDArray[np.float32], clip_norm: float) -> NDArray[np.float32]:
    """The update, scaled down to an L2 norm just below `clip_norm` if it is longer; float32 [n].

    Raises:
        PrivacyRefused: a value is not finite.
    """
    norm = math.sqrt(float(np.add.reduce(np.square(delta, dtype=np.float64))))
    if not math.isfinite(norm):
        raise PrivacyRefused("an update that is not finite cannot be clipped")
    if norm <= clip_norm * _CLIP_SLACK:
        return delta
    return (delta * np.float64(clip_norm / norm * _CLIP_SLACK)).astype(np.float32)


def skellam(n: int, variance: float, entropy: Callable[[int], bytes]) -> NDArray[np.int64]:
    """Skellam noise, int64 [n]; the generator is seeded from `entropy` anew on every call."""
    seed = entropy(_SEED_NBYTES)
    if len(seed) != _SEED_NBYTES:
        raise PrivacyRefused(f"the entropy source gave {len(seed)} bytes, not {_SEED_NBYTES}")
    generator = np.random.Generator(np.random.PCG64DXSM(int.from_bytes(seed, "big")))
    draws = max(1, math.ceil(variance / DRAW_VARIANCE))
    half, noise = variance / draws / 2, np.zeros(n, np.int64)
    for _ in range(draws):
        noise += generator.poisson(half, n)
        noise -= generator.poisson(half, n)
    return noise


def add_local_noise(
    words: NDArray[np.uint32], plan: NoisePlan, entropy: Callable[[int], bytes], chunk: int = 1 << 16
) -> None:
    """Add one participant's part to its ring elements, in place, modulo 2**32; once a vector."""
    for start in range(0, words.size, chunk):
        piece = words[start : start + chunk]
        np.add(piece, skellam(piece.size, plan.local_variance, entropy).astype(np.uint32), out=piece)


def add_central_noise(
    total: NDArray[np.int64], plan: NoisePlan, entropy: Callable[[int], bytes], chunk: int = 1 << 16
) -> None:
    """Add all the noise to the exact sum of clipped updates, int64 in units of the plan's grid, in place.

    Each client's values were rounded to that grid on their own, so D2 covers it, and nothing is rounded again.
    """
    for start in range(0, total.size, chunk):
        piece = total[start : start + chunk]
        np.add(piece, skellam(piece.size, plan.variance, entropy), out=piece)
