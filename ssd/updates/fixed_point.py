"""Exact sums: what makes a round's result independent of order, grouping, workers and crashes.

Floating-point addition is not associative, integer addition is. Each client's values become integers once,

    q = rint(float64(w) * float64(v) * 2**s)        (round half to even; w * 2**s is formed first, exactly)

and from then on only integers are added. Any tree of additions over the same set gives the same bits; the
mean is taken once, at the end: float32(float64(sum) / (2**s * W)).

The algebra every ring keeps (and the tests assert):

    add is commutative and associative; unpack(pack(a)) == a;
    open(add(quantise(u), quantise(v))) depends on the set {u, v} only.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer
from ssd.updates.packing import pack_int64, unpack_int64

FloatArray = NDArray[np.float32] | NDArray[np.float64]
Element = TypeVar("Element", bound=np.integer)

MAX_SCALE_BITS = 960
MAX_TOTAL_WEIGHT = 1 << 53
_CHUNK = 1 << 15


class OverflowRisk(ValueError):
    """The configured caps leave no room for an exact sum."""


def scale_bits(max_total_weight: int, max_abs: float) -> int:
    """The largest s the caps allow: s = 62 - ceil(log2(max_total_weight * max_abs)).

    Why nothing overflows: with W = max_total_weight, M = max_abs and any number K of clients with integer
    weights w_k >= 1, sum w_k <= W, and |v_k| <= M, every |q_k| <= w_k * M * 2**s + 1/2, and K <= W, so

        |sum q_k| <= W * M * 2**s + K / 2 <= 2**62 + W / 2 <= 2**62 + 2**52 < 2**63 - 1.

    (Rounding w * v * 2**s to float64 moves it by at most 2**-53 of itself, at most 2**9 per client, and
    2**62 * 2**-53 = 2**9 in all, as the relative errors apply to terms whose sum is at most 2**62.) Every
    partial sum is a sum over fewer clients, so it is bounded the same way, in any order.

    The logarithm is taken in exact rational arithmetic: a float log2 may be off by one at powers of two.

    Raises:
        OverflowRisk: a cap is not positive or not finite, W > 2**53 (float64(w) would round), or s would
            not be in 1..960 (the unit in the last place would be 1 or more; or 2**s * W is no float).
    """
    if type(max_total_weight) is not int:
        raise OverflowRisk(f"the largest total weight must be an integer, not {max_total_weight!r}")
    if not 1 <= max_total_weight <= MAX_TOTAL_WEIGHT:
        raise OverflowRisk(f"the largest total weight {max_total_weight} is not in 1..2**53")
    if not (math.isfinite(max_abs) and max_abs > 0):
        raise OverflowRisk(f"the largest magnitude must be positive and finite, not {max_abs}")
    bits = 62 - _ceil_log2(Fraction(max_total_weight) * Fraction(max_abs))
    if not 1 <= bits <= MAX_SCALE_BITS:
        raise OverflowRisk(
            f"a total weight of {max_total_weight} times values of up to {max_abs} "
            f"leaves a scale of 2**{bits}; lower one of the caps"
        )
    return bits


def _ceil_log2(value: Fraction) -> int:
    estimate = value.numerator.bit_length() - value.denominator.bit_length()
    # The bit lengths leave two candidates: the value lies between half and twice 2**estimate.
    return estimate if value <= Fraction(2) ** estimate else estimate + 1


class SumRing(Protocol[Element]):
    """Integers modulo something, as an integer dtype, in which clients' values are added exactly.

    Behaviour:
        quantise, add and open work in bounded extra memory and never change their inputs, except
        the accumulator of `add` and an `out` that was passed in.
    """

    def zeros(self, n: int) -> NDArray[Element]:
        """The neutral element, [n]."""
        ...

    def quantise(
        self, values: FloatArray, weight: int, scale_bits: int, out: NDArray[Element] | None = None
    ) -> NDArray[Element]:
        """Round weight * values * 2**scale_bits, of finite values within the caps `scale_bits` was made from."""
        ...

    def add(self, accumulator: NDArray[Element], addend: NDArray[Element]) -> None:
        """Add in place: accumulator += addend."""
        ...

    def pack(self, accumulator: NDArray[Element]) -> bytes:
        """The ring elements as bytes, without loss."""
        ...

    def unpack(self, packed: Buffer, n: int) -> NDArray[Element]:
        """The inverse of `pack`; raises `ssd.updates.codec.MalformedUpdate` for anything `pack` does not produce."""
        ...

    def open(self, accumulator: NDArray[Element], scale_bits: int, total_weight: int) -> NDArray[np.float32]:
        """float32(float64(accumulator) / (2**scale_bits * total_weight))."""
        ...


class Int64Ring:
    """The integers modulo 2**64 as int64; within the caps of `scale_bits` nothing ever wraps."""

    def zeros(self, n: int) -> NDArray[np.int64]:
        """int64 [n] of zeros."""
        return np.zeros(n, np.int64)

    def quantise(
        self, values: FloatArray, weight: int, scale_bits: int, out: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """See `SumRing.quantise`. The values must be finite: this is checked before, by `ssd.updates.fold`."""
        result = np.empty(values.size, np.int64) if out is None else out
        scratch = np.empty(min(_CHUNK, values.size), np.float64)
        factor = quantising_factor(weight, scale_bits)
        for start in range(0, values.size, _CHUNK):
            piece = values[start : start + _CHUNK]
            quantise_into(piece, factor, scratch[: piece.size], result[start : start + piece.size])
        return result

    def add(self, accumulator: NDArray[np.int64], addend: NDArray[np.int64]) -> None:
        """See `SumRing.add`."""
        np.add(accumulator, addend, out=accumulator)

    def pack(self, accumulator: NDArray[np.int64]) -> bytes:
        """See `ssd.updates.packing`."""
        return pack_int64(accumulator).tobytes()

    def unpack(self, packed: Buffer, n: int) -> NDArray[np.int64]:
        """See `ssd.updates.packing`."""
        return unpack_int64(packed, n)

    def open(self, accumulator: NDArray[np.int64], scale_bits: int, total_weight: int) -> NDArray[np.float32]:
        """See `SumRing.open`."""
        out = np.empty(accumulator.size, np.float32)
        open_into(accumulator, scale_bits, total_weight, out)
        return out


def quantising_factor(weight: int, scale_bits: int) -> np.float64:
    """float64(weight) * 2**scale_bits; exact for weights up to 2**53."""
    return np.float64(math.ldexp(float(weight), scale_bits))


def quantise_into(
    values: FloatArray, factor: np.float64, scratch: NDArray[np.float64], out: NDArray[np.int64]
) -> None:
    """Write rint(float64(values) * factor) to `out`; `scratch` is as long as `values` and overwritten."""
    # The dtype is explicit, because float32 times a float64 scalar is float32 in numpy.
    np.multiply(values, factor, out=scratch, dtype=np.float64)
    np.rint(scratch, out=scratch)
    np.copyto(out, scratch, casting="unsafe")


def open_into(
    accumulator: NDArray[np.int64],
    scale_bits: int,
    total_weight: int,
    out: NDArray[np.float32] | NDArray[np.float64],
) -> None:
    """Write float64(accumulator) / (2**scale_bits * total_weight) to `out`, rounded once to its dtype.

    Raises:
        ValueError: the total weight is not positive.
    """
    if total_weight < 1:
        raise ValueError(f"a sum of total weight {total_weight} has no mean")
    divisor = quantising_factor(total_weight, scale_bits)
    scratch = np.empty(min(_CHUNK, accumulator.size), np.float64)
    for start in range(0, accumulator.size, _CHUNK):
        piece = accumulator[start : start + _CHUNK]
        np.divide(piece, divisor, out=scratch[: piece.size])
        np.copyto(out[start : start + piece.size], scratch[: piece.size], casting="same_kind")
