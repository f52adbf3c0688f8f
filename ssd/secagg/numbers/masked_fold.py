"""One participant's masked vector: its clients' updates, its noise and its masks, in one sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssd.digest import CHUNK_BYTES, Buffer
from ssd.privacy.noise import add_local_noise
from ssd.secagg.numbers.masked_body import read_body
from ssd.secagg.numbers.masked_plan import CLIENTS, HEADER_VALUES, ONE, WEIGHT, MaskedPlan
from ssd.secagg.numbers.masking import MaskKey, apply_masks
from ssd.secagg.numbers.mod_ring import ModRing
from ssd.secagg.numbers.rounding import CHUNK_VALUES, RoundingStream
from ssd.updates.check import check_update
from ssd.updates.fixed_point import Int64Ring, OverflowRisk


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
            yield read_body(self.plan, self._narrow, self._wide, start, stop)

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
