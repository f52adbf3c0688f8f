"""The layout and the scales of a run's masked vectors, fixed once and the same on every host.

`masked_fold` makes one participant's vector by this plan, and `masked_sum` opens the sum of a round's vectors. A masked
vector is two rings behind one another, so that one set of masks covers all a participant says:

    narrow   the groups that may be compressed, clipped and stochastically rounded, in Z / 2**ring_bits
    wide     in Z / 2**64: the constant 1, the number of clients, their total weight, every statistic and every group
             that must not be compressed, the last two in exactly the fixed point of a plain round

On the wire: the narrow elements in their low ring_bits / 8 bytes each, then the wide ones in 8 bytes each, all
little-endian, in the order of the parameter vector. In every mask's stream the narrow elements take 4 bytes each, and
the wide ones follow at the next multiple of 16.

The law of the three modules, asserted bit for bit by their tests: with all masks gone, the sum is the sum of what the
participants' clients were quantised to, whatever the order and whoever folded whom.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssd.digest import canonical_json
from ssd.privacy.noise import NoisePlan
from ssd.privacy.settings import NoisePlace, PrivacyRefused, PrivacySettings
from ssd.secagg.numbers.mod_ring import RING_BITS, narrow_scale_bits, sum_limit
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold_plan import FoldConfigError, FoldPlan, GroupFold

DIGEST_LABEL = b"ssd-secagg-numbers-v1"
ONE, CLIENTS, WEIGHT, HEADER_VALUES = 0, 1, 2, 3
WIDE_NBYTES = 8
WRAP_CHANCE = 1e-9
"""The probability that a round's noise leaves its headroom. It would stop the run, although the sum still fits the ring."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedSettings:
    """What the numbers of one run depend on, beside its fold plan."""

    ring_bits: int = 24
    clip: float = 1.0
    """Largest |value| of one client in a narrow group; larger ones are clipped to it."""
    max_client_weight: int = 1024
    """A client of more samples counts as this many."""
    max_cohort: int
    """Clients in a round, at most."""
    dp: PrivacySettings | None = None
    """Differential privacy by noise of the participants; part of the digest."""

    def __post_init__(self) -> None:
        if self.ring_bits not in RING_BITS:
            raise FoldConfigError(f"ring_bits must be one of {RING_BITS}, not {self.ring_bits!r}")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise FoldConfigError(f"clip must be positive and finite, not {self.clip!r}")
        for name, cap in (("max_client_weight", self.max_client_weight), ("max_cohort", self.max_cohort)):
            if type(cap) is not int or cap < 1:
                raise FoldConfigError(f"{name} must be a positive integer, not {cap!r}")
        if self.dp is not None and self.dp.place is not NoisePlace.DISTRIBUTED:
            raise FoldConfigError(
                "participants mask together with noise of their own, not of the coordinator's"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedGroup:
    """One group's place in its segment."""

    fold: GroupFold
    narrow: bool
    at: slice
    """In the narrow or in the wide elements."""
    scale_bits: int
    max_abs: float

    def limit(self, weight: int, clients: int) -> int:
        """The largest magnitude of a sum over so much weight and so many clients."""
        return sum_limit(self.fold.weight_of(weight, clients), self.max_abs, self.scale_bits, clients)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedPlan:
    """The layout and scales of one run's masked vectors; the same on every host."""

    fold: FoldPlan
    settings: MaskedSettings
    groups: tuple[MaskedGroup, ...]
    narrow_size: int
    wide_size: int
    digest: bytes
    """32 bytes over everything the meaning of an element depends on."""
    noise: NoisePlan | None = None
    """What every participant adds to its narrow elements; None: nothing."""

    @classmethod
    def create(cls, plan: FoldPlan, settings: MaskedSettings) -> MaskedPlan:
        """Lay the plan's groups and statistics out and fix the narrow scales.

        Raises:
            FoldConfigError: the caps are larger than those the plan was made for.
            OverflowRisk: the ring leaves no room for the largest cohort's sums; names the group.
        """
        if settings.max_cohort > plan.max_cohort or settings.max_client_weight > plan.max_client_weight:
            raise FoldConfigError("secure aggregation cannot allow more clients or weight than the run does")
        noise = None if settings.dp is None else _noise_plan(plan, settings, settings.dp)
        groups: list[MaskedGroup] = []
        narrow, wide = 0, HEADER_VALUES + plan.statistics_size
        for fold, declared in zip(plan.groups, plan.declaration.groups, strict=True):
            size = fold.where.stop - fold.where.start
            if not declared.compress:
                at, bits, max_abs = slice(wide, wide + size), fold.scale_bits, fold.max_abs
                wide += size
            else:
                at, max_abs = slice(narrow, narrow + size), min(settings.clip, fold.max_abs)
                bits = _narrow_scale_bits(fold, settings, max_abs) if noise is None else noise.scale_bits
                narrow += size
            groups.append(
                MaskedGroup(fold=fold, narrow=declared.compress, at=at, scale_bits=bits, max_abs=max_abs)
            )
        return cls(
            fold=plan,
            settings=settings,
            groups=tuple(groups),
            narrow_size=narrow,
            wide_size=wide,
            digest=_digest(plan, settings, groups),
            noise=noise,
        )

    @property
    def value_nbytes(self) -> int:
        """Bytes of a narrow element on the wire."""
        return self.settings.ring_bits // 8

    @property
    def narrow_nbytes(self) -> int:
        """Bytes of the narrow segment on the wire."""
        return self.narrow_size * self.value_nbytes

    @property
    def nbytes(self) -> int:
        """The exact length of a masked upload."""
        return self.narrow_nbytes + WIDE_NBYTES * self.wide_size

    @property
    def wide_start(self) -> int:
        """Where the wide elements lie in every mask's stream."""
        return -(-4 * self.narrow_size // 16) * 16

    @property
    def words_nbytes(self) -> int:
        """Bytes of every mask's stream that are used."""
        return self.wide_start + WIDE_NBYTES * self.wide_size

    @property
    def max_total_weight(self) -> int:
        """The most weight a round can have."""
        return self.settings.max_cohort * self.settings.max_client_weight


def _narrow_scale_bits(fold: GroupFold, settings: MaskedSettings, max_abs: float) -> int:
    cohort = settings.max_cohort
    total = fold.weight_of(cohort * settings.max_client_weight, cohort)
    try:
        return narrow_scale_bits(
            settings.ring_bits, max_abs, total, cohort, fold.weight_of(settings.max_client_weight, 1)
        )
    except OverflowRisk as error:
        raise OverflowRisk(f"group {fold.name!r}: {error}") from error


def _noise_plan(plan: FoldPlan, settings: MaskedSettings, privacy: PrivacySettings) -> NoisePlan:
    """The noise at the largest scale at which the largest cohort's sum and noise stay within the ring.

    The cohort counts once for its values and once, as if every client came alone, for the participants' noise.
    """
    wide = [group.name for group in plan.declaration.groups if not group.compress]
    if wide or plan.clip_norm != privacy.clip_norm or settings.max_client_weight != 1:
        raise FoldConfigError(
            f"noise covers clipped updates of weight 1 and nothing else; outside it: {wide or 'the clipping'}"
        )
    cohort, size, room = settings.max_cohort, plan.size, (1 << (settings.ring_bits - 1)) - 1
    max_abs = max(min(settings.clip, group.max_abs) for group in plan.groups)
    bits = math.floor(math.log2(room / (cohort * max_abs)))
    while math.ldexp(privacy.clip_norm, bits) >= math.sqrt(size):
        try:
            noise = NoisePlan.of(privacy, size, bits)
        except PrivacyRefused:
            bits -= 1
            continue
        if sum_limit(cohort, max_abs, bits, cohort) + noise.headroom(cohort, WRAP_CHANCE) <= room:
            return noise
        bits -= 1
    raise OverflowRisk(
        f"noise and {cohort} clients' updates of {size} values leave no scale in a ring of {settings.ring_bits} bits: "
        "take a wider ring, a smaller cohort, more honest participants or a smaller noise multiplier"
    )


def _digest(plan: FoldPlan, settings: MaskedSettings, groups: Sequence[MaskedGroup]) -> bytes:
    meaning = {
        "declaration": plan.declaration.digest,
        "ring_bits": settings.ring_bits,
        "clip": settings.clip,
        "max_client_weight": settings.max_client_weight,
        "max_cohort": settings.max_cohort,
        "dp": None if settings.dp is None else settings.dp.to_json(),
        "groups": [[group.fold.name, group.narrow, group.at.start, group.scale_bits] for group in groups],
        "statistics": [[each.name, each.where.start, each.scale_bits] for each in plan.statistics],
    }
    return hashlib.sha256(DIGEST_LABEL + canonical_json(meaning)).digest()
