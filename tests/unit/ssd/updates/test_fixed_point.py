"""Fixed point: the scale, the rounding, and room enough for the worst case."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.updates.fixed_point import (
    MAX_TOTAL_WEIGHT,
    Int64Ring,
    OverflowRisk,
    open_into,
    quantising_factor,
    scale_bits,
)

RING = Int64Ring()


@given(st.integers(1, MAX_TOTAL_WEIGHT), st.floats(1e-6, 1e3))
@settings(max_examples=200, deadline=None)
def test_the_scale_is_the_largest_that_fits(weight: int, largest: float) -> None:
    product = Fraction(weight) * Fraction(largest)
    try:
        bits = scale_bits(weight, largest)
    except OverflowRisk:
        assert product * 2 > 2**62, "refused although s = 1 fits"
        return
    assert product * 2**bits <= 2**62 < product * 2 ** (bits + 1)


def test_powers_of_two_are_not_off_by_one() -> None:
    assert scale_bits(1, 1.0) == 62
    assert scale_bits(1 << 20, 8.0) == 39
    assert scale_bits(1 << 20, math.nextafter(8.0, 9.0)) == 38
    assert scale_bits(1 << 20, math.nextafter(8.0, 0.0)) == 39
    assert scale_bits((1 << 20) + 1, 8.0) == 38


@pytest.mark.parametrize(
    ("weight", "largest"),
    [
        (0, 1.0),
        (-1, 1.0),
        (True, 1.0),
        (1.0, 1.0),
        (MAX_TOTAL_WEIGHT + 1, 1.0),
        (1, 0.0),
        (1, -1.0),
        (1, math.nan),
        (1, math.inf),
        (1 << 40, 2.0**22),
        (1 << 53, 1e300),
        (1, 1e-300),
    ],
)
def test_caps_without_room_are_refused(weight: int, largest: float) -> None:
    with pytest.raises(OverflowRisk):
        scale_bits(weight, largest)


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50),
    st.integers(1, 2**24),
)
@settings(max_examples=200, deadline=None)
def test_quantising_is_one_correct_rounding(values: list[float], weight: int) -> None:
    bits = scale_bits(2**24, 8.0)
    ring = RING.quantise(np.array(values, np.float32), weight, bits)
    # A 24-bit weight times a 24-bit value is exact in float64; Python rounds fractions half to even.
    assert ring.tolist() == [round(Fraction(value) * weight * 2**bits) for value in values]


def test_halves_round_to_even() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    assert RING.quantise(values, 1, 0).tolist() == [0, 2, 2, 0, -2, -2]


def test_the_factor_is_exact() -> None:
    assert quantising_factor(MAX_TOTAL_WEIGHT - 1, 30) == float((MAX_TOTAL_WEIGHT - 1) << 30)


@pytest.mark.parametrize(("clients", "weight"), [(1, MAX_TOTAL_WEIGHT), (1000, 2**40), (3, 1)])
@pytest.mark.parametrize("largest", [1.0, math.nextafter(1.0, 0.0), 0.7])
def test_the_worst_case_does_not_wrap(clients: int, weight: int, largest: float) -> None:
    if clients * weight > MAX_TOTAL_WEIGHT:
        weight = MAX_TOTAL_WEIGHT // clients
    bits = scale_bits(clients * weight, largest)
    for sign in (1.0, -1.0):
        one = RING.quantise(np.array([sign * largest]), weight, bits)
        total = RING.zeros(1)
        for _ in range(clients):
            RING.add(total, one)
        assert int(total[0]) == clients * int(one[0]), "the sum of Python's integers, which never wrap"
        opened = RING.open(total, bits, clients * weight)
        assert opened[0] == np.float32(sign * largest)


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=30), st.integers(1, 2**50), st.integers(1, 60)
)
@settings(max_examples=100, deadline=None)
def test_opening_rounds_like_ieee(sums: list[int], weight: int, bits: int) -> None:
    opened = RING.open(np.array(sums, np.int64), bits, weight)
    assert opened.tolist() == [float(np.float32(float(value) / (2.0**bits * weight))) for value in sums]


def test_opening_keeps_float64_for_statistics() -> None:
    out = np.empty(1)
    open_into(np.array([(1 << 52) + 1]), 3, 1, out)
    assert out[0] == ((1 << 52) + 1) / 8
    with pytest.raises(ValueError):
        open_into(np.array([1]), 3, 0, out)


def test_long_arrays_are_treated_like_short_ones() -> None:
    values = np.random.default_rng(1).standard_normal(100_001).astype(np.float32)
    bits = scale_bits(1000, 8.0)
    ring = RING.quantise(values, 7, bits)
    pieces = [RING.quantise(values[i : i + 977], 7, bits) for i in range(0, values.size, 977)]
    assert ring.tobytes() == np.concatenate(pieces).tobytes()
    assert RING.unpack(RING.pack(ring), ring.size).tobytes() == ring.tobytes()
    assert np.abs(RING.open(ring, bits, 7) - values).max() < 1e-6
    out = np.empty(values.size, np.int64)
    assert RING.quantise(values, 7, bits, out=out) is out
