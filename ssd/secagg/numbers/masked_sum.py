"""The sum of a round's masked vectors, and what it opens to once the masks are gone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ssd.digest import CHUNK_BYTES, Buffer, byte_view
from ssd.secagg.numbers.masked_body import read_body
from ssd.secagg.numbers.masked_plan import HEADER_VALUES, WIDE_NBYTES, WRAP_CHANCE, MaskedGroup, MaskedPlan
from ssd.secagg.numbers.masking import MaskKey, apply_masks, negated
from ssd.secagg.numbers.mod_ring import ModRing, sum_limit
from ssd.updates.codec import MalformedUpdate
from ssd.updates.fixed_point import Int64Ring, open_into
from ssd.updates.fold_plan import OpenedFold

_PIECE_VALUES = 1 << 16


class NotConsistent(ValueError):
    """An opened vector is no sum of the expected participants' vectors."""


class MaskedSum:
    """The running sum of a round's masked vectors, and what it opens to. Memory: one vector, and a few chunks."""

    def __init__(self, plan: MaskedPlan) -> None:
        self.plan = plan
        self._narrow = np.zeros(plan.narrow_size, np.uint32)
        self._wide = np.zeros(plan.wide_size, np.int64)
        self._ring = ModRing(plan.settings.ring_bits, plan.settings.clip)
        self._spoiled = False

    def add(self, body: Buffer | Iterable[Buffer]) -> None:
        """Add one participant's wire body, whole or as pieces of any size, in order.

        Raises:
            MalformedUpdate: the length is not `MaskedPlan.nbytes`. A whole body is refused before anything is added;
                if pieces run short or over, a part was added and the sum can only be thrown away (`open` refuses).
        """
        if isinstance(body, bytes | bytearray | memoryview | np.ndarray):
            view = byte_view(body)
            if view.nbytes != self.plan.nbytes:
                raise MalformedUpdate(f"{view.nbytes} bytes, expected {self.plan.nbytes}")
            body = [view]
        self._spoiled, was = True, self._spoiled
        sizes = _piece_sizes(self.plan)
        position = 0
        for piece in _regrouped(body, sizes, self.plan.nbytes):
            self._add_piece(position, piece)
            position += piece.nbytes
        self._spoiled = was

    def subtract(self, keys: Sequence[MaskKey], threads: int = 1) -> None:
        """Take masks, with their signs, out of the sum."""
        opposite = negated(keys)
        apply_masks(self._narrow, 0, opposite, threads)
        apply_masks(self._wide.view(np.uint64), self.plan.wide_start, opposite)

    def packed_digest(self) -> bytes:
        """SHA-256 of the sum in its wire form: of the opened ring vector once all masks are gone."""
        hasher = hashlib.sha256()
        for start in range(0, self.plan.nbytes, CHUNK_BYTES):
            stop = min(start + CHUNK_BYTES, self.plan.nbytes)
            hasher.update(read_body(self.plan, self._narrow, self._wide, start, stop))
        return hasher.digest()

    def open(self, participants: int) -> OpenedFold:
        """What the participants' clients add up to.

        Raises:
            NotConsistent: the constant 1 does not add up to `participants`, or a count, weight, statistic or value is
                larger than so many clients can make: a mask is left, or an upload was lost, replayed or forged.
        """
        if self._spoiled:
            raise NotConsistent("an upload was cut short while it was added")
        clients, weight = self._counts(participants)
        plan, delta = self.plan.fold, np.empty(self.plan.fold.size, np.float32)
        for group in self.plan.groups:
            self._check_range(group, weight, clients, participants)
            fold = group.fold
            divisor = fold.divisor(weight, clients)
            if group.narrow:
                delta[fold.where] = self._ring.open(self._narrow[group.at], group.scale_bits, divisor)
            else:
                open_into(self._wide[group.at], group.scale_bits, divisor, delta[fold.where])
        statistics = {}
        for statistic in plan.statistics:
            sums = self._wide[HEADER_VALUES + statistic.where.start : HEADER_VALUES + statistic.where.stop]
            limit = sum_limit(clients, statistic.max_abs, statistic.scale_bits, clients)
            _check_magnitude(f"statistic {statistic.name!r}", sums, limit)
            values = np.empty(sums.size, np.float64)
            open_into(sums, statistic.scale_bits, 1, values)
            statistics[statistic.name] = values.reshape(statistic.shape)
        return OpenedFold(delta=delta, statistics=statistics, clients=clients, weight=weight)

    def _counts(self, participants: int) -> tuple[int, int]:
        one, clients, weight = (int(value) for value in self._wide[:HEADER_VALUES])
        settings = self.plan.settings
        if one != participants:
            raise NotConsistent(f"the constant adds up to {one}, with {participants} participants")
        if not participants <= clients <= settings.max_cohort:
            raise NotConsistent(f"{clients} clients of {participants} participants")
        if not clients <= weight <= clients * settings.max_client_weight:
            raise NotConsistent(f"{clients} clients with a total weight of {weight}")
        return clients, weight

    def _check_range(self, group: MaskedGroup, weight: int, clients: int, participants: int) -> None:
        limit, noise = group.limit(weight, clients), self.plan.noise
        if noise is not None:
            limit += noise.headroom(participants, WRAP_CHANCE)
        for start in range(group.at.start, group.at.stop, _PIECE_VALUES):
            here = slice(start, min(start + _PIECE_VALUES, group.at.stop))
            sums = self._ring.signed(self._narrow[here]) if group.narrow else self._wide[here]
            _check_magnitude(f"group {group.fold.name!r}", sums, limit)

    def _add_piece(self, position: int, piece: memoryview) -> None:
        boundary, width = self.plan.narrow_nbytes, self.plan.value_nbytes
        if position < boundary:
            at, n = position // width, piece.nbytes // width
            self._ring.add(self._narrow[at : at + n], self._ring.unpack(piece, n))
        else:
            at, wide = (position - boundary) // WIDE_NBYTES, np.frombuffer(piece, "<i8")
            Int64Ring().add(self._wide[at : at + wide.size], wide)


def _piece_sizes(plan: MaskedPlan) -> Iterator[int]:
    """Lengths of whole elements of one segment each, that make up a body."""
    for count, width in ((plan.narrow_size, plan.value_nbytes), (plan.wide_size, WIDE_NBYTES)):
        for start in range(0, count, _PIECE_VALUES):
            yield min(_PIECE_VALUES, count - start) * width


def _regrouped(pieces: Iterable[Buffer], sizes: Iterator[int], expected: int) -> Iterator[memoryview]:
    """The same bytes in pieces of the given sizes; a piece is overwritten by the next one."""
    room = memoryview(bytearray(_PIECE_VALUES * WIDE_NBYTES))
    filled, wanted, seen = 0, next(sizes), 0
    for piece in pieces:
        rest = byte_view(piece)
        seen += rest.nbytes
        if seen > expected:
            raise MalformedUpdate(f"more than the expected {expected} bytes")
        while rest.nbytes:
            if not filled and rest.nbytes >= wanted:
                whole, rest = rest[:wanted], rest[wanted:]
                yield whole
                wanted = next(sizes, 0)
                continue
            taken = min(rest.nbytes, wanted - filled)
            room[filled : filled + taken] = rest[:taken]
            filled, rest = filled + taken, rest[taken:]
            if filled == wanted:
                yield room[:filled]
                filled, wanted = 0, next(sizes, 0)
    if seen != expected:
        raise MalformedUpdate(f"{seen} bytes, expected {expected}")


def _check_magnitude(what: str, sums: NDArray[np.int64], limit: int) -> None:
    if sums.size and max(int(sums.max()), -int(sums.min())) > limit:
        raise NotConsistent(f"{what}: a sum is larger than the clients can make")
