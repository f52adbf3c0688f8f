"""The judgement over a body that arrived: everything is checked before anything is added.

All arithmetic is float64 in a fixed order with numpy's pairwise sum, never a BLAS whose order depends on
the processor, so a body is accepted everywhere or nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view
from ssd.updates.codec import MalformedUpdate, NotFinite, max_nan
from ssd.updates.fold_plan import FoldPlan, GroupFold
from ssd.updates.packing import iter_unpacked, packed_nbytes

_NORM_SLACK = 1.0 + 1e-9
"""Room for the rounding of a fold's norm; a client's own norm gets none."""
NORM_CHUNK = 1 << 15
"""Values that are squared and summed at a time: what a norm's last bits depend on."""
_ROUNDING = 1.0 + 2.0**-7
"""A float32 sum of n squares, added in any order, is at least 1 - (n + 1) * 2**-24 of the true one: for n = 2**15 more
than 1 - 2**-8. Squares that are too small for float32 are lost besides: less than 2**-126 each."""
_UNDERFLOW = 2.0**-110
_LARGEST_SQUARE = 1e300


class RefusalReason(StrEnum):
    """Why a body is refused; a stable word, also a metric label."""

    WRONG_LENGTH = "wrong_length"
    NOT_FINITE = "not_finite"
    OVER_BOUND = "over_bound"
    OVER_NORM = "over_norm"
    WEIGHT_OUT_OF_RANGE = "weight_out_of_range"
    MALFORMED = "malformed"
    STATISTIC_OUT_OF_RANGE = "statistic_out_of_range"


class UpdateRefused(ValueError):
    """A body must not be added."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


def check_update(plan: FoldPlan, body: Buffer, weight: int) -> None:
    """Judge one client's whole body: length, weight, encoding, finite, bounds, norms, statistics.

    Raises:
        UpdateRefused: the first thing that is wrong.
    """
    check_frame(plan, body, weight)
    encoded, statistics = plan.split_update(body)
    check = UpdateCheck(plan)
    with refusals():
        for group, offset, values in plan.iter_update(encoded):
            for piece in check.pieces(group, offset, values):
                check.judge(piece)
        check.finish(encoded, statistics)


def check_frame(plan: FoldPlan, body: Buffer, weight: int) -> None:
    """Judge what can be judged before a value is read: the weight and the length.

    Raises:
        UpdateRefused: one of them is wrong.
    """
    _check_weight(weight, plan.max_client_weight)
    nbytes = byte_view(body).nbytes
    if nbytes != plan.update_nbytes:
        raise UpdateRefused(RefusalReason.WRONG_LENGTH, f"{nbytes} bytes, expected {plan.update_nbytes}")


class UpdateCheck:
    """The judgement over one client's values as they are read, piece by piece, in order.

    Most updates are far within their bounds, and a float32 sum of squares shows it in a fraction of the time. Where it
    does not show it beyond its own rounding, the exact comparison decides, so that the verdict is always the exact one.
    """

    def __init__(self, plan: FoldPlan) -> None:
        self._plan = plan
        self._at_most = {group.name: 0.0 for group in plan.groups}
        """No group's sum of squares is larger."""
        self._here: tuple[GroupFold, int, NDArray[np.float32]]

    def pieces(
        self, group: GroupFold, offset: int, values: NDArray[np.float32]
    ) -> Iterator[NDArray[np.float32]]:
        """Views of at most `NORM_CHUNK` of these values, which begin at `offset`, in order."""
        self._here = (group, offset, values)
        for start in range(0, values.size, NORM_CHUNK):
            yield values[start : start + NORM_CHUNK]

    def judge(self, piece: NDArray[np.float32]) -> None:
        """Judge the values of the last of `pieces` one by one.

        Raises:
            UpdateRefused: a value is not finite or over the group's bound.
        """
        group = self._here[0]
        at_most = float(np.einsum("i,i->", piece, piece)) * _ROUNDING + _UNDERFLOW
        if not at_most <= _square(group.max_abs):
            _check_bound(*self._here)
        self._at_most[group.name] += at_most

    def finish(self, encoded: memoryview, statistics: NDArray[np.float64]) -> None:
        """Judge the norms and the flat statistics, when all values were judged.

        Raises:
            UpdateRefused: the first thing that is wrong.
        """
        within = all(self._at_most[group.name] <= _square(group.norm_bound) for group in self._plan.groups)
        if self._plan.clip_norm is not None:
            within = within and sum(self._at_most.values()) <= _square(self._plan.clip_norm)
        if not within:
            _check_norms(self._plan, encoded)
        _check_statistics(self._plan, statistics)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a decoder says of a body into the refusal that it amounts to; numbers that are none warn nobody."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except NotFinite as error:
        raise UpdateRefused(RefusalReason.NOT_FINITE, str(error)) from error
    except MalformedUpdate as error:
        raise UpdateRefused(RefusalReason.MALFORMED, str(error)) from error


def _square(bound: float) -> float:
    """A little less than the square of a bound, and finite."""
    return min(bound * bound * (1.0 - 2.0**-40), _LARGEST_SQUARE)


def _check_norms(plan: FoldPlan, encoded: memoryview) -> None:
    squares = {group.name: 0.0 for group in plan.groups}
    scratch = np.empty(NORM_CHUNK, np.float64)
    for group, _, values in plan.iter_update(encoded):
        squares[group.name] += _sum_of_squares(values, scratch)
    for group in plan.groups:
        norm = math.sqrt(squares[group.name])
        if not norm <= group.norm_bound:
            raise UpdateRefused(
                RefusalReason.OVER_NORM, f"group {group.name!r}: norm {norm:.6g} over {group.norm_bound:.6g}"
            )
    if plan.clip_norm is not None:
        _check_clipped(math.sqrt(sum(squares.values())), plan.clip_norm)


def _sum_of_squares(values: NDArray[np.float32], scratch: NDArray[np.float64]) -> float:
    total = 0.0
    for start in range(0, values.size, scratch.size):
        piece = values[start : start + scratch.size]
        squares = scratch[: piece.size]
        np.multiply(piece, piece, out=squares, dtype=np.float64)
        total += float(np.add.reduce(squares))
    return total


def check_fold(plan: FoldPlan, body: Buffer, weight: int, clients: int) -> None:
    """Judge a worker's whole fold of `clients` updates with total weight `weight`.

    A sum of updates that each pass `check_update` passes: |sum| <= weight * max_abs and, by the triangle
    inequality, norm <= weight * norm_bound, each plus what rounding to integers can add (1/2 per client
    and value). A sum that passes may still hide clients that would not: bounds on a sum cannot see more.

    Raises:
        UpdateRefused: the first thing that is wrong.
    """
    if type(clients) is not int or not 1 <= clients <= plan.max_cohort:
        raise UpdateRefused(RefusalReason.WEIGHT_OUT_OF_RANGE, f"a fold of {clients!r} clients")
    _check_weight(weight, clients * plan.max_client_weight, lowest=clients)
    view = byte_view(body)
    if not 0 < view.nbytes <= plan.max_fold_nbytes:
        raise UpdateRefused(
            RefusalReason.WRONG_LENGTH, f"{view.nbytes} bytes, at most {plan.max_fold_nbytes} expected"
        )
    try:
        boundary = packed_nbytes(view, plan.size)
        _check_sums(plan, view[:boundary], weight, clients)
        _check_statistic_sums(plan, view[boundary:], clients)
    except MalformedUpdate as error:
        raise UpdateRefused(RefusalReason.MALFORMED, str(error)) from error


def _check_weight(weight: int, cap: int, lowest: int = 1) -> None:
    if type(weight) is not int or not lowest <= weight <= cap:
        raise UpdateRefused(
            RefusalReason.WEIGHT_OUT_OF_RANGE, f"weight {weight!r} is no integer in {lowest}..{cap}"
        )


def _check_bound(group: GroupFold, offset: int, values: NDArray[np.float32]) -> None:
    largest = max_nan(float(values.max()), -float(values.min()))
    if largest <= group.max_abs:
        return
    here = f"group {group.name!r}, values {offset}..{offset + values.size - 1}"
    if not math.isfinite(largest):
        raise UpdateRefused(RefusalReason.NOT_FINITE, f"{here}: a value is not finite")
    raise UpdateRefused(RefusalReason.OVER_BOUND, f"{here}: {largest:.6g} over {group.max_abs:.6g}")


def _check_clipped(norm: float, limit: float) -> None:
    if not norm <= limit:
        raise UpdateRefused(
            RefusalReason.OVER_NORM, f"the whole update: norm {norm:.6g} over {limit:.6g}, it was not clipped"
        )


def _check_statistics(plan: FoldPlan, flat: NDArray[np.float64]) -> None:
    for statistic in plan.statistics:
        values = flat[statistic.where]
        if not np.isfinite(values).all():
            raise UpdateRefused(
                RefusalReason.NOT_FINITE, f"statistic {statistic.name!r} holds a value that is not finite"
            )
        largest = float(np.abs(values).max(initial=0.0))
        if largest > statistic.max_abs:
            raise UpdateRefused(
                RefusalReason.STATISTIC_OUT_OF_RANGE,
                f"statistic {statistic.name!r}: {largest:.6g} over {statistic.max_abs:.6g}",
            )


def _check_sums(plan: FoldPlan, packed: memoryview, weight: int, clients: int) -> None:
    squares = {group.name: 0.0 for group in plan.groups}
    limits = {
        group.name: _integer_limit(group.weight_of(weight, clients), group.max_abs, group.scale_bits, clients)
        for group in plan.groups
    }
    scratch = np.empty(NORM_CHUNK, np.float64)
    for offset, values in iter_unpacked(packed, plan.size):
        for group in plan.groups:
            start = max(group.where.start - offset, 0)
            piece = values[start : max(group.where.stop - offset, start)]
            if not piece.size:
                continue
            if max(int(piece.max()), -int(piece.min())) > limits[group.name]:
                raise UpdateRefused(
                    RefusalReason.OVER_BOUND,
                    f"group {group.name!r}: a sum is larger than {clients} clients of weight {weight} can make",
                )
            squares[group.name] += _integer_squares(piece, group.scale_bits, scratch)
    for group in plan.groups:
        size = group.where.stop - group.where.start
        rounding = math.ldexp(0.5 * clients * math.sqrt(size), -group.scale_bits)
        limit = group.weight_of(weight, clients) * group.norm_bound * _NORM_SLACK + rounding
        norm = math.sqrt(squares[group.name])
        if not norm <= limit:
            raise UpdateRefused(
                RefusalReason.OVER_NORM, f"group {group.name!r}: norm {norm:.6g} over {limit:.6g}"
            )
    if plan.clip_norm is not None:
        rounding = math.ldexp(0.5 * clients * math.sqrt(plan.size), -plan.groups[0].scale_bits)
        _check_clipped(math.sqrt(sum(squares.values())), clients * plan.clip_norm * _NORM_SLACK + rounding)


def _integer_limit(weight: int, max_abs: float, bits: int, clients: int) -> int:
    # Exact integers: max_abs is a float, so max_abs * 2**bits is a dyadic rational.
    numerator, denominator = max_abs.as_integer_ratio()
    return (weight * numerator << bits) // denominator + clients


def _integer_squares(values: NDArray[np.int64], bits: int, scratch: NDArray[np.float64]) -> float:
    unit = math.ldexp(1.0, -bits)
    total = 0.0
    for start in range(0, values.size, scratch.size):
        piece = values[start : start + scratch.size]
        squares = scratch[: piece.size]
        np.multiply(piece, unit, out=squares)
        np.multiply(squares, squares, out=squares)
        total += float(np.add.reduce(squares))
    return total


def _check_statistic_sums(plan: FoldPlan, packed: memoryview, clients: int) -> None:
    sums = np.empty(plan.statistics_size, np.int64)
    for offset, values in iter_unpacked(packed, plan.statistics_size):
        sums[offset : offset + values.size] = values
    for statistic in plan.statistics:
        values = sums[statistic.where]
        limit = _integer_limit(clients, statistic.max_abs, statistic.scale_bits, clients)
        if values.size and max(int(values.max()), -int(values.min())) > limit:
            raise UpdateRefused(
                RefusalReason.STATISTIC_OUT_OF_RANGE,
                f"statistic {statistic.name!r}: a sum larger than {clients} clients can make",
            )
