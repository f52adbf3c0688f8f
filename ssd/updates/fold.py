"""Verify, then fold: from a client's body to the exact sum of a round.

One client's body is its encoded update followed by its statistics as float64; a worker's fold is the packed
integer sum of its clients' updates followed by that of their statistics. `check_update` and `check_fold`
judge a whole body and change nothing; only what passed may be added.

The law of this module, asserted bit for bit by its tests: the opened result depends on the *set* of added
updates only, not on their order nor on which of them were folded together first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view
from ssd.updates.check import (
    NORM_CHUNK,
    RefusalReason,
    UpdateCheck,
    UpdateRefused,
    check_fold,
    check_frame,
    check_update,
    refusals,
)
from ssd.updates.fixed_point import Int64Ring, OverflowRisk, open_into, quantise_into, quantising_factor
from ssd.updates.fold_plan import CHUNK_VALUES, FoldConfigError, FoldPlan, OpenedFold
from ssd.updates.packing import iter_unpacked, pack_int64, packed_nbytes

__all__ = [
    "Fold",
    "FoldConfigError",
    "FoldPlan",
    "OpenedFold",
    "RefusalReason",
    "UpdateRefused",
    "check_fold",
    "check_update",
    "encode_update",
]


def encode_update(
    plan: FoldPlan,
    delta: NDArray[np.float32],
    statistics: Mapping[str, NDArray[np.float64]],
    room: bytearray | None = None,
) -> bytearray:
    """One client's body, in `room` (of length `plan.update_nbytes`, all of it overwritten) if that is given.

    Who encodes again and again gives it: finding new pages takes longer than encoding.

    Raises:
        NotFinite: the delta holds a NaN or an infinity.
        ValueError: the statistics are not exactly the declared ones in their declared shapes.
    """
    declared = [statistic.name for statistic in plan.statistics]
    if set(statistics) != set(declared):
        raise ValueError(f"statistics {sorted(statistics)}, but {sorted(declared)} are declared")
    body = bytearray(plan.update_nbytes) if room is None else room
    if len(body) != plan.update_nbytes:
        raise ValueError(f"{len(body)} bytes of room, {plan.update_nbytes} needed")
    plan.codec.encode_into(delta, memoryview(body)[: plan.codec.nbytes])
    flat = np.frombuffer(body, "<f8", plan.statistics_size, plan.codec.nbytes)
    for statistic in plan.statistics:
        values = np.asarray(statistics[statistic.name], np.float64)
        if values.shape != statistic.shape:
            raise ValueError(f"statistic {statistic.name!r} has shape {values.shape}, not {statistic.shape}")
        flat[statistic.where] = values.reshape(-1)
    return body


class Fold:
    """The running exact sum of one round. Memory: one int64 per value, and a few scratch chunks.

    Adding trusts its input: call `check_update` or `check_fold` first. What is checked here again is only
    what keeps the sum exact: the caps on clients and total weight, and the lengths.
    """

    def __init__(self, plan: FoldPlan) -> None:
        self.plan = plan
        self.clients = 0
        self.weight = 0
        self._ring = Int64Ring()
        self._sum = self._ring.zeros(plan.size)
        self._statistics = self._ring.zeros(plan.statistics_size)

    def add_update(self, body: Buffer, weight: int) -> None:
        """Add one client's checked body.

        Raises:
            OverflowRisk: the sum would hold more clients or weight than the plan was made for.
            MalformedUpdate: the body has another length (nothing was added).
        """
        clients, total = self._counts_with(1, weight)
        encoded, statistics = self.plan.split_update(body)
        integers = np.empty(CHUNK_VALUES, np.int64)
        for group, start, values in self.plan.iter_update(encoded):
            factor, room = group.weight_of(weight, 1), integers[: values.size]
            addend = self._ring.quantise(values, factor, group.scale_bits, out=room)
            self._ring.add(self._sum[start : start + values.size], addend)
        for statistic in self.plan.statistics:
            addend = self._ring.quantise(statistics[statistic.where], 1, statistic.scale_bits)
            self._ring.add(self._statistics[statistic.where], addend)
        self.clients, self.weight = clients, total

    def verify_and_add(self, body: Buffer, weight: int) -> None:
        """Judge one client's body as `check_update` does and add it, in one pass over its values.

        A body that turns out bad when a part of it is in the sum already is subtracted again: integers allow that, and
        the sum is then, bit for bit, what it was.

        Raises:
            UpdateRefused: the first thing that is wrong; the sum is unchanged.
            OverflowRisk: the sum would hold more clients or weight than the plan was made for.
        """
        check_frame(self.plan, body, weight)
        clients, total = self._counts_with(1, weight)
        encoded, statistics = self.plan.split_update(body)
        check = UpdateCheck(self.plan)
        added = 0
        try:
            with refusals():
                for piece, offset, values in self._judged(check, encoded, weight):
                    np.add(piece, values, out=piece)
                    added = offset + values.size
                check.finish(encoded, statistics)
        except UpdateRefused:
            self._subtract(encoded, weight, added)
            raise
        for statistic in self.plan.statistics:
            addend = self._ring.quantise(statistics[statistic.where], 1, statistic.scale_bits)
            self._ring.add(self._statistics[statistic.where], addend)
        self.clients, self.weight = clients, total

    def _judged(
        self, check: UpdateCheck, encoded: memoryview, weight: int
    ) -> Iterator[tuple[NDArray[np.int64], int, NDArray[np.int64]]]:
        """Yield what is to be added where, piece by piece, each judged before it is given out.

        Yields:
            The place in the sum, its offset, and the integers; the last are overwritten by the next piece.
        """
        wide, integers = np.empty(NORM_CHUNK, np.float64), np.empty(NORM_CHUNK, np.int64)
        for group, offset, values in self.plan.iter_update(encoded):
            factor = quantising_factor(group.weight_of(weight, 1), group.scale_bits)
            start = offset
            for piece in check.pieces(group, offset, values):
                check.judge(piece)
                quantise_into(piece, factor, wide[: piece.size], integers[: piece.size])
                yield self._sum[start : start + piece.size], start, integers[: piece.size]
                start += piece.size

    def _subtract(self, encoded: memoryview, weight: int, until: int) -> None:
        """Take the first `until` values of a body out of the sum again."""
        for group, offset, values in self.plan.iter_update(encoded):
            if offset >= until:
                return
            piece = values[: until - offset]
            addend = self._ring.quantise(piece, group.weight_of(weight, 1), group.scale_bits)
            place = self._sum[offset : offset + piece.size]
            np.subtract(place, addend, out=place)

    def add_fold(self, body: Buffer, weight: int, clients: int) -> None:
        """Add a worker's checked fold of `clients` updates with total weight `weight`.

        Raises:
            OverflowRisk: as `add_update`.
            MalformedUpdate: the body is no packed fold. The sum may then hold a part of it and must be
                thrown away, which is why the whole body is checked first.
        """
        total_clients, total = self._counts_with(clients, weight)
        view = byte_view(body)
        boundary = packed_nbytes(view, self.plan.size)
        for start, values in iter_unpacked(view[:boundary], self.plan.size):
            self._ring.add(self._sum[start : start + values.size], values)
        for start, values in iter_unpacked(view[boundary:], self.plan.statistics_size):
            self._ring.add(self._statistics[start : start + values.size], values)
        self.clients, self.weight = total_clients, total

    def pack(self) -> bytes:
        """The body of this fold; `add_fold` of it equals adding each update."""
        return b"".join((pack_int64(self._sum).data, pack_int64(self._statistics).data))

    def add_noise(self, add: Callable[[NDArray[np.int64]], None]) -> None:
        """Let `add` change the exact sum in place, in units of the plan's scale; once, just before it is opened."""
        add(self._sum)

    def open(self) -> OpenedFold:
        """The cohort's reduced values; the fold may go on afterwards.

        Raises:
            ValueError: nothing has been added.
        """
        if self.clients < 1:
            raise ValueError("an empty fold has no mean")
        delta = np.empty(self.plan.size, np.float32)
        for group in self.plan.groups:
            divisor = group.divisor(self.weight, self.clients)
            open_into(self._sum[group.where], group.scale_bits, divisor, delta[group.where])
        statistics = {}
        for statistic in self.plan.statistics:
            values = np.empty(statistic.where.stop - statistic.where.start, np.float64)
            open_into(self._statistics[statistic.where], statistic.scale_bits, 1, values)
            statistics[statistic.name] = values.reshape(statistic.shape)
        return OpenedFold(delta=delta, statistics=statistics, clients=self.clients, weight=self.weight)

    def _counts_with(self, clients: int, weight: int) -> tuple[int, int]:
        total_clients, total = self.clients + clients, self.weight + weight
        if not 1 <= clients <= weight or total_clients > self.plan.max_cohort:
            raise OverflowRisk(f"a fold of {total_clients} clients, planned for {self.plan.max_cohort}")
        if total > self.plan.max_total_weight:
            raise OverflowRisk(f"a fold of weight {total}, planned for {self.plan.max_total_weight}")
        return total_clients, total
