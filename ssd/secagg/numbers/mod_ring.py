"""Integers modulo 2**m for m = 16, 24 or 32: the ring of masked model values.

Elements are computed as uint32, modulo 2**32; dropping the high bytes on the wire is the reduction modulo 2**m, which
commutes with every addition. A sum is opened by reading the low m bits as a signed number, so it must lie in
-2**(m-1)..2**(m-1) - 1: `narrow_scale_bits` leaves no other.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view
from ssd.secagg.numbers.rounding import CHUNK_VALUES, RoundingStream, StochasticRounder
from ssd.updates.codec import MalformedUpdate
from ssd.updates.fixed_point import MAX_SCALE_BITS, FloatArray, OverflowRisk, open_into

RING_BITS = (16, 24, 32)
FEWEST_LEVELS = 7
"""The integers a client of the largest weight can use on either side of zero; with fewer there is no update left."""


def narrow_scale_bits(ring_bits: int, clip: float, max_total: int, max_addends: int, max_factor: int) -> int:
    """The largest s with max_total * clip * 2**s + max_addends <= 2**(ring_bits - 1) - 1; may be negative.

    Why nothing wraps: an addend of factor w is at most ceil(w * clip * 2**s) in magnitude, so a sum of at most
    `max_addends` addends whose factors add up to at most `max_total` is at most max_total * clip * 2**s + max_addends.

    Raises:
        OverflowRisk: an addend of the largest factor would have fewer than 7 levels on either side.
    """
    room = (1 << (ring_bits - 1)) - 1 - max_addends
    unit = Fraction(max_total) * Fraction(clip)
    bits = _floor_log2(Fraction(room) / unit) if room > 0 else -MAX_SCALE_BITS
    levels = math.floor(Fraction(max_factor) * Fraction(clip) * Fraction(2) ** bits)
    if levels < FEWEST_LEVELS or bits > MAX_SCALE_BITS:
        raise OverflowRisk(
            f"sums of {max_addends} clients with a total factor of {max_total} leave {levels} levels in a ring of "
            f"{ring_bits} bits: take a wider ring, a smaller cohort or a smaller spread of weights"
        )
    return bits


def sum_limit(total: int, max_abs: float, scale_bits: int, addends: int) -> int:
    """The largest magnitude of a sum of `addends` whose factors add up to `total`."""
    return math.floor(Fraction(total) * Fraction(max_abs) * Fraction(2) ** scale_bits) + addends


class ModRing:
    """Z / 2**ring_bits as uint32; see `ssd.updates.fixed_point.SumRing`. Not to be shared between threads."""

    def __init__(self, ring_bits: int, clip: float, rounding: RoundingStream | None = None) -> None:
        """Values are clipped to +-clip and rounded with `rounding` (to the nearest without it) when quantised."""
        if ring_bits not in RING_BITS:
            raise ValueError(f"a ring of {ring_bits} bits; {RING_BITS} are provided for")
        self.ring_bits = ring_bits
        self.value_nbytes = ring_bits // 8
        self._clip = clip
        self._rounder = StochasticRounder(rounding)

    def zeros(self, n: int) -> NDArray[np.uint32]:
        """uint32 [n] of zeros."""
        return np.zeros(n, np.uint32)

    def quantise(
        self, values: FloatArray, weight: int, scale_bits: int, out: NDArray[np.uint32] | None = None
    ) -> NDArray[np.uint32]:
        """floor(weight * clip(values) * 2**scale_bits + u) modulo 2**32. The values must be finite."""
        result = np.empty(values.size, np.uint32) if out is None else out
        factor = math.ldexp(float(weight), scale_bits)
        for start in range(0, values.size, CHUNK_VALUES):
            here = slice(start, start + CHUNK_VALUES)
            self._rounder.round_into(values[here], factor, factor * self._clip, result[here].view(np.int32))
        return result

    def add(self, accumulator: NDArray[np.uint32], addend: NDArray[np.uint32]) -> None:
        """See `SumRing.add`."""
        np.add(accumulator, addend, out=accumulator)

    def pack(self, accumulator: NDArray[np.uint32]) -> bytes:
        """The low `value_nbytes` bytes of every element, little-endian."""
        return self.pack_array(accumulator).tobytes()

    def pack_array(self, elements: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Like `pack`, as uint8 [n * value_nbytes]; may be a view."""
        little = elements.astype("<u4", copy=False)
        if self.ring_bits == 32:
            return little.view(np.uint8)
        if self.ring_bits == 16:
            return little.astype("<u2").view(np.uint8)
        out = np.empty((elements.size, 3), np.uint8)
        _copy_low_bytes(little.view(np.uint8).reshape(-1, 4), out)
        return out.reshape(-1)

    def unpack(self, packed: Buffer, n: int) -> NDArray[np.uint32]:
        """The n elements, below 2**ring_bits; every string of the right length is one.

        Raises:
            MalformedUpdate: the length is not n * value_nbytes.
        """
        view = byte_view(packed)
        if view.nbytes != n * self.value_nbytes:
            raise MalformedUpdate(f"{view.nbytes} bytes, expected {n * self.value_nbytes}")
        if self.ring_bits == 32:
            return np.frombuffer(view, "<u4").astype(np.uint32)
        if self.ring_bits == 16:
            return np.frombuffer(view, "<u2").astype(np.uint32)
        out = np.zeros((n, 4), np.uint8)
        _copy_low_bytes(np.frombuffer(view, np.uint8).reshape(n, 3), out)
        return out.reshape(-1).view("<u4").astype(np.uint32, copy=False)

    def signed(self, accumulator: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The sums that the low bits stand for."""
        shift = np.uint32(32 - self.ring_bits)
        return (np.left_shift(accumulator, shift).view(np.int32) >> np.int32(shift)).astype(np.int64)

    def open(
        self, accumulator: NDArray[np.uint32], scale_bits: int, total_weight: int
    ) -> NDArray[np.float32]:
        """See `SumRing.open`."""
        out = np.empty(accumulator.size, np.float32)
        for start in range(0, accumulator.size, CHUNK_VALUES):
            here = slice(start, start + CHUNK_VALUES)
            open_into(self.signed(accumulator[here]), scale_bits, total_weight, out[here])
        return out


def _copy_low_bytes(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    # Byte by byte of all elements: five times faster than element by element.
    for byte in range(3):
        target[:, byte] = source[:, byte]


def _floor_log2(value: Fraction) -> int:
    estimate = value.numerator.bit_length() - value.denominator.bit_length()
    # The bit lengths leave two candidates: the value lies between half and twice 2**estimate.
    return estimate if value >= Fraction(2) ** estimate else estimate - 1
