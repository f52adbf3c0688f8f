"""Packed integers: lossless, canonical, and no bomb."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssd.updates.codec import MalformedUpdate
from ssd.updates.packing import (
    BLOCK_VALUES,
    iter_unpacked,
    max_packed_nbytes,
    pack_int64,
    packed_nbytes,
    unpack_int64,
)

LOW, HIGH = -(2**63), 2**63 - 1


def pack(values: NDArray[np.int64]) -> bytearray:
    return bytearray(pack_int64(values))


def reference_unpack(packed: bytes, n: int) -> list[int]:
    """The module docstring, one value at a time."""
    blocks = -(-n // BLOCK_VALUES)
    minima = struct.unpack_from(f"<{blocks}q", packed)
    widths = packed[8 * blocks : 9 * blocks]
    position = -(-9 * blocks // 8) * 8
    values: list[int] = []
    for number, (minimum, width) in enumerate(zip(minima, widths, strict=True)):
        count = min(BLOCK_VALUES, n - number * BLOCK_VALUES)
        distances, shift = [0] * count, 0
        for nbytes in (8, 4, 2, 1):
            if width & nbytes:
                for i in range(count):
                    stored = packed[position + i * nbytes : position + (i + 1) * nbytes]
                    distances[i] |= int.from_bytes(stored, "little") << shift
                position += nbytes * count
                shift += 8 * nbytes
        values += [minimum + distance for distance in distances]
    assert position == len(packed)
    return values


def random_values(n: int, bits: int, seed: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    if bits == 64:
        return generator.integers(LOW, HIGH, n, np.int64, endpoint=True)
    values = generator.integers(0, 1 << bits, n, np.int64 if bits < 63 else np.uint64).astype(np.int64)
    return values + generator.integers(-(2**40), 2**40)


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 9, 16, 17, 24, 31, 33, 40, 41, 48, 49, 56, 57, 62, 64])
@pytest.mark.parametrize(
    "n", [0, 1, 3, BLOCK_VALUES - 1, BLOCK_VALUES, BLOCK_VALUES + 1, 20 * BLOCK_VALUES + 5]
)
def test_unpacking_brings_back_every_value(n: int, bits: int) -> None:
    values = random_values(n, bits, n + bits)
    packed = pack(values)
    assert len(packed) == packed_nbytes(packed, n) <= max_packed_nbytes(n)
    assert unpack_int64(packed, n).tobytes() == values.tobytes()
    if n <= BLOCK_VALUES + 1:
        assert reference_unpack(bytes(packed), n) == values.tolist()


@given(st.lists(st.integers(LOW, HIGH) | st.integers(-300, 300), max_size=30), st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_any_integers_survive(values: list[int], repeats: int) -> None:
    array = np.array(values * (1 + 100 * repeats), np.int64)
    packed = pack(array)
    assert unpack_int64(packed, array.size).tolist() == array.tolist()


def test_blocks_of_different_widths_stand_side_by_side() -> None:
    blocks = [random_values(BLOCK_VALUES, bits, bits) for bits in (0, 0, 9, 64, 64, 40, 9, 9, 0, 57)]
    values = np.concatenate([*blocks, np.array([LOW, HIGH])])
    assert unpack_int64(pack(values), values.size).tobytes() == values.tobytes()


def test_a_small_sum_takes_little_room() -> None:
    values = random_values(100 * BLOCK_VALUES, 24, 1)
    assert len(pack(values)) < 3.01 * values.size
    assert len(pack(np.full(BLOCK_VALUES, HIGH))) == 16


@pytest.mark.parametrize("n", [2, 100, BLOCK_VALUES, 3 * BLOCK_VALUES + 10])
def test_cut_or_lengthened_bytes_are_refused(n: int) -> None:
    packed = bytes(pack(random_values(n, 20, n)))
    for wrong in (b"", packed[:7], packed[:-1], packed + b"\0", packed[1:], packed + packed):
        with pytest.raises(MalformedUpdate):
            unpack_int64(wrong, n)
    for other in (n - 1, n + 1, n + BLOCK_VALUES, 0):
        with pytest.raises(MalformedUpdate):
            unpack_int64(packed, other)


@pytest.mark.parametrize("width", range(256))
def test_a_lying_width_is_refused(width: int) -> None:
    n = 2 * BLOCK_VALUES
    packed = pack(random_values(n, 20, 1))
    assert packed[16] == 3
    packed[16] = width
    if width == 3:
        unpack_int64(packed, n)
        return
    with pytest.raises(MalformedUpdate):
        unpack_int64(packed, n)
    # Also when the sender makes the length fit his lie.
    fitting = packed[:24] + bytes(BLOCK_VALUES * (width + 3))
    with pytest.raises(MalformedUpdate):
        unpack_int64(fitting, n)


def test_an_announced_bomb_allocates_nothing() -> None:
    n = 10**6
    blocks = -(-n // BLOCK_VALUES)
    header = bytearray(-(-9 * blocks // 8) * 8)
    header[8 * blocks : 9 * blocks] = b"\x08" * blocks
    with pytest.raises(MalformedUpdate, match="announce"):
        iter_unpacked(header, n)


def test_a_minimum_that_is_none_is_refused() -> None:
    # The same values, told as "minimum one less, every distance one more".
    packed = pack(np.arange(10, 20))
    assert bytes(packed[16:]) == bytes(range(10))
    struct.pack_into("<q", packed, 0, 9)
    packed[16:] = bytes(range(1, 11))
    with pytest.raises(MalformedUpdate):
        unpack_int64(packed, 10)


def test_distances_beyond_int64_are_refused() -> None:
    packed = pack(np.array([HIGH - 5, HIGH]))
    assert unpack_int64(packed, 2).tolist() == [HIGH - 5, HIGH]
    packed[-1] = 6
    with pytest.raises(MalformedUpdate):
        unpack_int64(packed, 2)


def test_padding_must_be_zero() -> None:
    packed = pack(np.arange(10))
    packed[9] = 1
    with pytest.raises(MalformedUpdate):
        unpack_int64(packed, 10)


@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_two_different_bodies_never_mean_the_same_values(seed: int, place: int, flip: int) -> None:
    values = random_values(50, 1 + seed % 60, seed)
    packed = pack(values)
    other = bytearray(packed)
    other[place % len(other)] ^= flip
    try:
        decoded = unpack_int64(other, 50)
    except MalformedUpdate:
        return
    assert decoded.tolist() != values.tolist()
    assert pack(decoded) == other
