"""From clients' updates to one masked vector, and from the sum of masked vectors to a round's result.

A masked vector is two rings behind one another, so that one set of masks covers all a participant says:

    narrow   the groups that may be compressed, clipped and stochastically rounded, in Z / 2**ring_bits
    wide     in Z / 2**64: the constant 1, the number of clients, their total weight, every statistic and every group
             that must not be compressed, the last two in exactly the fixed point of a plain round

On the wire: the narrow elements in their low ring_bits / 8 bytes each, then the wide ones in 8 bytes each, all
little-endian, in the order of the parameter vector. In every mask's stream the narrow elements take 4 bytes each, and
the wide ones follow at the next multiple of 16.

The law of this module, asserted bit for bit by its tests: with all masks gone, the sum is the sum of what the
participants' clients were quantised to, whatever the order and whoever folded whom.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.digest import CHUNK_BYTES, Buffer, byte_view, canonical_json
from ssd.privacy.noise import NoisePlan, add_local_noise
from ssd.privacy.settings import NoisePlace, PrivacyRefused, PrivacySettings
from ssd.secagg.numbers.masking import MaskKey, apply_masks, negated
from ssd.secagg.numbers.mod_ring import RING_BITS, ModRing, narrow_scale_bits, sum_limit
from ssd.secagg.numbers.rounding import CHUNK_VALUES, RoundingStream
from ssd.updates.check import check_update
from ssd.updates.codec import MalformedUpdate
from ssd.updates.fixed_point import Int64Ring, OverflowRisk, open_into
from ssd.updates.fold_plan import FoldConfigError, FoldPlan, GroupFold, OpenedFold

DIGEST_LABEL = b"ssd-secagg-numbers-v1"
ONE, CLIENTS, WEIGHT, HEADER_VALUES = 0, 1, 2, 3
_WIDE_NBYTES = 8
_PIECE_VALUES = 1 << 16
_WRAP_CHANCE = 1e-9
"""That noise leaves its headroom in a round: it would stop the run, although the sum itself is far from the ring's end."""


class NotConsistent(ValueError):
    """An opened vector is no sum of the expected participants' vectors."""


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
        return self.narrow_nbytes + _WIDE_NBYTES * self.wide_size

    @property
    def wide_start(self) -> int:
        """Where the wide elements lie in every mask's stream."""
        return -(-4 * self.narrow_size // 16) * 16

    @property
    def words_nbytes(self) -> int:
        """Bytes of every mask's stream that are used."""
        return self.wide_start + _WIDE_NBYTES * self.wide_size

    @property
    def max_total_weight(self) -> int:
        """The most weight a round can have."""
        return self.settings.max_cohort * self.settings.max_client_weight

    def new_fold(self) -> MaskedFold:
        """An empty fold of one participant."""
        return MaskedFold(self)

    def new_sum(self) -> MaskedSum:
        """An empty sum of a round."""
        return MaskedSum(self)


class MaskedFold:
    """One participant's vector: its clients' updates, then its masks. Memory: the vector, and a few chunks.

    Masks may be added before the clients are ("precomputed"): it is all one sum. Once bytes were handed out the
    fold is closed: another update under the same masks would lay open the difference.
    """

    def __init__(self, plan: MaskedPlan) -> None:
        self.plan = plan
        self.clients = 0
        self.weight = 0
        self._narrow = np.zeros(plan.narrow_size, np.uint32)
        self._wide = np.zeros(plan.wide_size, np.int64)
        self._wide[ONE] = 1
        self._masked = False
        self._noisy = plan.noise is None
        self._closed = False

    def add_client(self, body: Buffer, weight: int, rounding_key: bytes) -> None:
        """Add one client's float32 update of `weight` samples; more than the cap count as the cap.

        Raises:
            UpdateRefused: as `ssd.updates.check.check_update` (nothing was added).
            OverflowRisk: there would be more clients than the plan was made for (nothing was added).
            ValueError: bytes were handed out already, or the rounding key is no key (nothing was added).
        """
        if self._closed:
            raise ValueError("the masked vector was handed out; nothing may be added under the same masks")
        if self.clients >= self.plan.settings.max_cohort:
            raise OverflowRisk(f"a fold of more than {self.plan.settings.max_cohort} clients")
        factor = min(weight, self.plan.settings.max_client_weight)
        rounding = RoundingStream(rounding_key)
        check_update(self.plan.fold, body, factor)
        encoded, statistics = self.plan.fold.split_update(body)
        self._add_groups(encoded, factor, rounding)
        for statistic in self.plan.fold.statistics:
            where = slice(HEADER_VALUES + statistic.where.start, HEADER_VALUES + statistic.where.stop)
            ring = Int64Ring()
            ring.add(self._wide[where], ring.quantise(statistics[statistic.where], 1, statistic.scale_bits))
        self._wide[CLIENTS] += 1
        self._wide[WEIGHT] += factor
        self.clients += 1
        self.weight += factor

    def add_masks(self, keys: Sequence[MaskKey], threads: int = 1) -> None:
        """Add every mask of this participant, once.

        Raises:
            ValueError: there are no masks, they were added before, or one is no mask.
        """
        if self._masked or not keys:
            raise ValueError("masks are added once" if self._masked else "a vector without masks is not sent")
        apply_masks(self._narrow, 0, keys, threads)
        apply_masks(self._wide.view(np.uint64), self.plan.wide_start, keys)
        self._masked = True

    def add_noise(self, entropy: Callable[[int], bytes]) -> None:
        """Add this participant's part of the noise, once.

        Args:
            entropy: n secret uniform bytes; never a stream that can be made again.

        Raises:
            ValueError: the plan has no noise, or it was added before.
        """
        if self.plan.noise is None or self._noisy:
            raise ValueError("noise is added once, where there is any")
        add_local_noise(self._narrow, self.plan.noise, entropy)
        self._noisy = True

    def pack_chunks(self, first: int = 0) -> Iterator[bytes]:
        """The wire body as 1 MiB chunks (the last one shorter) from chunk `first` on; may be asked for again.

        Raises:
            ValueError: no masks were added, or no client, or not the noise that the plan asks for.
        """
        if not self._masked or not self.clients:
            raise ValueError("only a masked vector of at least one client is handed out")
        if not self._noisy:
            raise ValueError("a vector without its noise is not sent")
        self._closed = True
        return self._chunks(first)

    def _chunks(self, first: int) -> Iterator[bytes]:
        for start in range(first * CHUNK_BYTES, self.plan.nbytes, CHUNK_BYTES):
            stop = min(start + CHUNK_BYTES, self.plan.nbytes)
            yield _read(self.plan, self._narrow, self._wide, start, stop)

    def _add_groups(self, encoded: memoryview, factor: int, rounding: RoundingStream) -> None:
        by_name = {group.fold.name: group for group in self.plan.groups}
        rings = {
            group.fold.name: ModRing(self.plan.settings.ring_bits, group.max_abs, rounding)
            for group in self.plan.groups
            if group.narrow
        }
        wide, room, integers = (
            Int64Ring(),
            np.empty(CHUNK_VALUES, np.uint32),
            np.empty(CHUNK_VALUES, np.int64),
        )
        for fold, offset, values in self.plan.fold.iter_update(encoded):
            group = by_name[fold.name]
            weight = fold.weight_of(factor, 1)
            for start in range(0, values.size, CHUNK_VALUES):
                piece = values[start : start + CHUNK_VALUES]
                at = group.at.start + offset - fold.where.start + start
                if group.narrow:
                    ring = rings[fold.name]
                    addend = ring.quantise(piece, weight, group.scale_bits, out=room[: piece.size])
                    ring.add(self._narrow[at : at + piece.size], addend)
                else:
                    exact = wide.quantise(piece, weight, group.scale_bits, out=integers[: piece.size])
                    wide.add(self._wide[at : at + piece.size], exact)


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
            hasher.update(_read(self.plan, self._narrow, self._wide, start, stop))
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
            limit += noise.headroom(participants, _WRAP_CHANCE)
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
            at, wide = (position - boundary) // _WIDE_NBYTES, np.frombuffer(piece, "<i8")
            Int64Ring().add(self._wide[at : at + wide.size], wide)


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
        if sum_limit(cohort, max_abs, bits, cohort) + noise.headroom(cohort, _WRAP_CHANCE) <= room:
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


def _read(
    plan: MaskedPlan, narrow: NDArray[np.uint32], wide: NDArray[np.int64], start: int, stop: int
) -> bytes:
    """Bytes start..stop of the wire body."""
    ring, width, boundary = (
        ModRing(plan.settings.ring_bits, plan.settings.clip),
        plan.value_nbytes,
        plan.narrow_nbytes,
    )
    parts = []
    if start < boundary:
        end = min(stop, boundary)
        first = start // width
        packed = ring.pack_array(narrow[first : -(-end // width)])
        parts.append(packed[start - first * width : end - first * width].tobytes())
    if stop > boundary:
        begin = max(start, boundary) - boundary
        first = begin // _WIDE_NBYTES
        elements = (
            wide[first : -(-(stop - boundary) // _WIDE_NBYTES)].astype("<i8", copy=False).view(np.uint8)
        )
        skipped = first * _WIDE_NBYTES
        parts.append(elements[begin - skipped : stop - boundary - skipped].tobytes())
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _piece_sizes(plan: MaskedPlan) -> Iterator[int]:
    """Lengths of whole elements of one segment each, that make up a body."""
    for count, width in ((plan.narrow_size, plan.value_nbytes), (plan.wide_size, _WIDE_NBYTES)):
        for start in range(0, count, _PIECE_VALUES):
            yield min(_PIECE_VALUES, count - start) * width


def _regrouped(pieces: Iterable[Buffer], sizes: Iterator[int], expected: int) -> Iterator[memoryview]:
    """The same bytes in pieces of the given sizes; a piece is overwritten by the next one."""
    room = memoryview(bytearray(_PIECE_VALUES * _WIDE_NBYTES))
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
