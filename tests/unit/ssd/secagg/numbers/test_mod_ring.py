"""The narrow ring by itself: packing, rounding and its bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure.masked_numbers import (
    RINGS,
    key_of,
)
from ssd.secagg.numbers.mod_ring import ModRing
from ssd.secagg.numbers.rounding import RoundingStream
from ssd.updates.codec import MalformedUpdate


def test_rounding_has_no_bias() -> None:
    """The mean over many keys of one value is the value: 4,000 draws of deviation <= 1/2, within six deviations."""
    ring = ModRing(16, 1.0, RoundingStream(key_of("bias")))
    for x in (0.25, -0.25, 3.7, -3.7, 0.999, 12.0):
        values = np.full(4000, x / 16, np.float32)
        drawn = ring.signed(ring.quantise(values, 1, 4))
        assert abs(drawn.mean() - float(values[0]) * 16) < 6 * 0.5 / math.sqrt(4000)
        assert set(drawn.tolist()) <= {math.floor(x), math.ceil(x)}


@given(st.sampled_from(RINGS), st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_a_ring_packs_modulo_its_size(bits: int, elements: list[int]) -> None:
    ring = ModRing(bits, 1.0)
    packed = ring.pack(np.array(elements, np.uint32))
    assert packed == b"".join((e % 2**bits).to_bytes(bits // 8, "little") for e in elements)
    assert ring.unpack(packed, len(elements)).tolist() == [e % 2**bits for e in elements]
    signed = [(e + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for e in elements]
    assert ring.signed(np.array(elements, np.uint32)).tolist() == signed


@pytest.mark.parametrize("bits", RINGS)
def test_a_ring_refuses_other_lengths(bits: int) -> None:
    for nbytes in (0, bits // 8 * 3 - 1, bits // 8 * 3 + 1):
        with pytest.raises(MalformedUpdate):
            ModRing(bits, 1.0).unpack(bytes(nbytes), 3)
    with pytest.raises(ValueError, match="ring"):
        ModRing(bits + 1, 1.0)


def test_rounding_up_past_the_bound_is_brought_back() -> None:
    """2**28 + (1 - 2**-32) is 2**28 + 1 in float64."""
    ring = ModRing(32, 1.0, RoundingStream(key_of("past")))
    ring._rounder._stream.next = lambda n: np.full(n, 2**32 - 1, np.uint32)  # type: ignore[method-assign]
    values = np.float32([1.0, -1.0, 0.5])
    assert ring.signed(ring.quantise(values, 1, 28)).tolist()[0] == 2**28
    assert ring.signed(ring.quantise(values, 1, 28)).tolist()[1] >= -(2**28)


def test_without_a_stream_values_are_rounded_to_the_nearest() -> None:
    ring = ModRing(24, 10.0)
    values = np.float32([0.4, 0.6, -0.4, -0.6, 3.0])
    assert ring.signed(ring.quantise(values, 1, 0)).tolist() == [0, 1, 0, -1, 3]
    assert ring.open(ring.quantise(values, 2, 3), 3, 2).tolist() == [0.375, 0.625, -0.375, -0.625, 3.0]
