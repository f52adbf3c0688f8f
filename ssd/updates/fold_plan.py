"""How the bodies of one run are laid out and scaled: fixed once, the same on every host.

A plan is made from the run's declaration and caps alone. It refuses a configuration whose sums could
overflow, so that no later step has to think about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view
from ssd.updates.codec import Encoding, MalformedUpdate, VectorCodec
from ssd.updates.declaration import Declaration, Reducer
from ssd.updates.fixed_point import MAX_TOTAL_WEIGHT, OverflowRisk, scale_bits
from ssd.updates.packing import max_packed_nbytes
from ssd.updates.quality_sums import statistics as quality_statistics

CHUNK_VALUES = 1 << 16
_CLIPPED_LEVELS = 16
"""Units of a clipped update's scale in clip_norm / sqrt(n), at least: rounding, counted as part of a client's influence,
is then a sixteenth of it at most, and noise of several times that influence is still within its sampler's reach."""


class FoldConfigError(ValueError):
    """The declaration cannot be folded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFold:
    """One group's numbers."""

    name: str
    where: slice
    reducer: Reducer
    scale_bits: int
    max_abs: float
    norm_bound: float

    def weight_of(self, weight: int, clients: int) -> int:
        """How many times a value within the bounds may be in a sum of that weight and that many clients.

        For a single client (`clients` = 1) this is what its values are multiplied with.
        """
        return weight if self.reducer is Reducer.WEIGHTED_MEAN else clients

    def divisor(self, weight: int, clients: int) -> int:
        """What the sum is divided by in the end."""
        return 1 if self.reducer is Reducer.SUM else self.weight_of(weight, clients)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticFold:
    """One statistic's place among the flattened statistics, and its numbers."""

    name: str
    shape: tuple[int, ...]
    where: slice
    scale_bits: int
    max_abs: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldPlan:
    """The layout and scales of one run's updates and folds."""

    declaration: Declaration
    codec: VectorCodec
    """Of one client's update."""
    groups: tuple[GroupFold, ...]
    statistics: tuple[StatisticFold, ...]
    max_cohort: int
    max_client_weight: int
    size: int
    """Values of the parameter vector."""
    statistics_size: int
    """Values of all statistics, flattened in declared order."""
    clip_norm: float | None = None
    """Under differential privacy: the largest L2 norm of one client's whole update. None: the norm has no bound."""

    @classmethod
    def create(
        cls,
        declaration: Declaration,
        update_encoding: Encoding,
        max_cohort: int,
        max_client_weight: int,
        *,
        quality: bool = False,
        clip_norm: float | None = None,
    ) -> FoldPlan:
        """Fix layout and scales for cohorts of up to `max_cohort` clients of integer weight 1..cap.

        Groups that must not be compressed travel as float32 whatever `update_encoding` says. With `quality` the
        statistics end with the declared quality sums, as in the rounds that measure.

        With `clip_norm` (differential privacy) an update has that L2 norm at most, every group has the same scale, as
        noise must be measured with one ruler, and the plan has no statistics, because they would be outside the noise.

        Raises:
            FoldConfigError: a bound is no bound.
            OverflowRisk: the caps could overflow the exact sum; names the group or statistic.
        """
        for name, cap in (("max_cohort", max_cohort), ("max_client_weight", max_client_weight)):
            if type(cap) is not int or cap < 1:
                raise FoldConfigError(f"{name} must be a positive integer, not {cap!r}")
        if clip_norm is not None and not (
            math.isfinite(clip_norm) and clip_norm > 0 and max_client_weight == 1
        ):
            raise FoldConfigError(
                f"clipped to {clip_norm!r}, every client counts once, not {max_client_weight} times"
            )
        if max_cohort * max_client_weight > MAX_TOTAL_WEIGHT:
            raise OverflowRisk(f"{max_cohort} clients of weight {max_client_weight} exceed 2**53")
        spec = declaration.spec
        encodings = {
            group.name: update_encoding if group.compress else Encoding.FLOAT32
            for group in declaration.groups
        }
        groups = _scale_groups(declaration, max_cohort, max_client_weight, clip_norm)
        statistics: tuple[StatisticFold, ...] = ()
        if clip_norm is None:
            statistics = _lay_out_statistics(declaration, max_cohort, quality=quality)
        return cls(
            declaration=declaration,
            codec=VectorCodec(spec, encodings),
            groups=groups,
            statistics=statistics,
            max_cohort=max_cohort,
            max_client_weight=max_client_weight,
            size=spec.size,
            statistics_size=statistics[-1].where.stop if statistics else 0,
            clip_norm=clip_norm,
        )

    @property
    def update_nbytes(self) -> int:
        """The exact length of one client's body."""
        return self.codec.nbytes + 8 * self.statistics_size

    @property
    def max_fold_nbytes(self) -> int:
        """The most bytes a worker's fold can have."""
        return max_packed_nbytes(self.size) + max_packed_nbytes(self.statistics_size)

    @property
    def max_total_weight(self) -> int:
        """The most weight a whole round can have."""
        return self.max_cohort * self.max_client_weight

    def split_update(self, body: Buffer) -> tuple[memoryview, NDArray[np.float64]]:
        """The encoded delta and the flat statistics of one client's body; nothing is copied.

        Raises:
            MalformedUpdate: the body has another length.
        """
        view = byte_view(body)
        if view.nbytes != self.update_nbytes:
            raise MalformedUpdate(f"{view.nbytes} bytes, expected {self.update_nbytes}")
        flat = np.frombuffer(view, "<f8", self.statistics_size, self.codec.nbytes)
        return view[: self.codec.nbytes], flat.astype(np.float64, copy=False)

    def iter_update(self, encoded: memoryview) -> Iterator[tuple[GroupFold, int, NDArray[np.float32]]]:
        """The decoded values as (group, offset, values) pieces within one group, cache-sized.

        A piece is overwritten by the next one.

        Raises:
            MalformedUpdate: as `VectorCodec.decode`.
        """
        groups = iter(self.groups)
        group = next(groups)
        scratch = np.empty(CHUNK_VALUES, np.float32)
        for offset, values in self.codec.iter_decoded(encoded, scratch=scratch):
            while offset >= group.where.stop:
                group = next(groups)
            yield group, offset, values


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedFold:
    """What a cohort's updates add up to."""

    delta: NDArray[np.float32]
    """[n] each group reduced as declared."""
    statistics: Mapping[str, NDArray[np.float64]]
    """Sums over the cohort, in their declared shapes."""
    clients: int
    weight: int


def _scale_groups(
    declaration: Declaration, max_cohort: int, max_client_weight: int, clip_norm: float | None
) -> tuple[GroupFold, ...]:
    """Fix every group's scale. Clipped groups share the smallest one, as noise is measured with one ruler.

    Raises:
        FoldConfigError: a group's norm bound is no bound.
        OverflowRisk: the caps could overflow the exact sum; names the group.
    """
    groups = []
    for group in declaration.groups:
        if not group.norm_bound > 0:
            raise FoldConfigError(f"group {group.name!r} has the norm bound {group.norm_bound}")
        weighted = group.reducer is Reducer.WEIGHTED_MEAN
        total = max_cohort * max_client_weight if weighted else max_cohort
        max_abs = group.max_abs if clip_norm is None else min(group.max_abs, clip_norm)
        groups.append(
            GroupFold(
                name=group.name,
                where=declaration.spec.groups[group.name],
                reducer=group.reducer,
                scale_bits=_scale_bits(f"group {group.name!r}", total, max_abs),
                max_abs=max_abs,
                norm_bound=group.norm_bound,
            )
        )
    if clip_norm is None:
        return tuple(groups)
    bits = min(_clipped_scale_bits(clip_norm, declaration.spec.size), *(group.scale_bits for group in groups))
    return tuple(replace(group, scale_bits=bits) for group in groups)


def _lay_out_statistics(
    declaration: Declaration, max_cohort: int, *, quality: bool
) -> tuple[StatisticFold, ...]:
    """Place the declared statistics one behind the other, the quality sums last, and fix their scales.

    Raises:
        OverflowRisk: the cohort could overflow the exact sum; names the statistic.
    """
    measured = quality_statistics(declaration.quality) if quality and declaration.quality else ()
    placed: list[StatisticFold] = []
    offset = 0
    for statistic in (*declaration.statistics, *measured):
        size = int(np.prod(statistic.shape, dtype=np.int64))
        placed.append(
            StatisticFold(
                name=statistic.name,
                shape=statistic.shape,
                where=slice(offset, offset + size),
                scale_bits=_scale_bits(f"statistic {statistic.name!r}", max_cohort, statistic.max_abs),
                max_abs=statistic.max_abs,
            )
        )
        offset += size
    return tuple(placed)


def _scale_bits(what: str, total_weight: int, max_abs: float) -> int:
    try:
        return scale_bits(total_weight, max_abs)
    except OverflowRisk as error:
        raise OverflowRisk(f"{what}: {error}") from error


def _clipped_scale_bits(clip_norm: float, size: int) -> int:
    return max(0, math.ceil(math.log2(_CLIPPED_LEVELS * math.sqrt(size) / clip_norm)))
