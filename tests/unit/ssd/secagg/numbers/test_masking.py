"""Masks: the standard's own vectors, the same bytes wherever a chunk or a thread begins."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.secagg.numbers.masking import MaskKey, apply_masks, negated
from ssd.secagg.numbers.prg import CHUNK_NBYTES, Keystream, add_keystream, keystream

NIST_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NIST_COUNTER = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
NIST_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_CIPHER = bytes.fromhex(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)


def test_the_stream_is_nist_sp_800_38a_f_5_5() -> None:
    stream = keystream(NIST_KEY, 16 * NIST_COUNTER, 64)
    assert bytes(a ^ b for a, b in zip(stream, NIST_PLAIN, strict=True)) == NIST_CIPHER


def test_the_stream_begins_with_the_zero_counter_block() -> None:
    # AES-256 of the zero block under the zero key: the hash key H of test case 13 of the GCM specification.
    assert keystream(bytes(32), 0, 16).hex() == "dc95c078a2408989ad48a21492842087"


def test_words_are_little_endian() -> None:
    words = np.zeros(2, np.uint32)
    add_keystream(bytes(32), words, 0, 1)
    assert [hex(word) for word in words] == ["0x78c095dc", "0x898940a2"]
    wide = np.zeros(1, np.uint64)
    add_keystream(bytes(32), wide, 0, 1)
    assert hex(wide[0]) == "0x898940a278c095dc"


WHOLE = keystream(NIST_KEY, 0, 3 * CHUNK_NBYTES + 100)


@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
@settings(max_examples=40, deadline=None)
def test_any_range_of_a_stream_is_that_range_of_the_whole(start: int, length: int) -> None:
    length = min(length, len(WHOLE) - start)
    assert keystream(NIST_KEY, start, length) == WHOLE[start : start + length]


@given(
    size=st.integers(0, 5000),
    start=st.integers(0, 5000),
    chunk=st.sampled_from([8, 16, 24, 40, 1000, 4096, CHUNK_NBYTES]),
    threads=st.integers(1, 5),
    wide=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_chunks_and_threads_change_no_byte(
    size: int, start: int, chunk: int, threads: int, wide: bool
) -> None:
    dtype = np.uint64 if wide else np.uint32
    keys = [MaskKey(bytes([i]) * 32, 1 if i % 2 else -1) for i in range(3)]
    words = np.arange(size, dtype=dtype)
    apply_masks(words, 4 * start, keys, threads, chunk_nbytes=chunk)
    expected = np.arange(size, dtype=dtype)
    for key, sign in keys:
        mask = np.frombuffer(keystream(key, 4 * start, expected.nbytes), dtype)
        expected = expected + mask if sign == 1 else expected - mask
    assert words.tobytes() == expected.tobytes()


def test_masks_larger_than_a_chunk_are_the_stream() -> None:
    words = np.zeros(2 * CHUNK_NBYTES // 4 + 7, np.uint32)
    apply_masks(words, 0, [MaskKey(NIST_KEY, 1)], threads=2)
    assert words.tobytes() == WHOLE[: words.nbytes]


def test_opposite_masks_cancel_in_any_order() -> None:
    keys = [MaskKey(bytes([i]) * 32, 1) for i in range(5)]
    words = np.arange(999, dtype=np.uint32)
    apply_masks(words, 8, keys)
    assert words.tobytes() != np.arange(999, dtype=np.uint32).tobytes()
    apply_masks(words, 8, list(reversed(negated(keys))))
    assert words.tobytes() == np.arange(999, dtype=np.uint32).tobytes()


def test_the_low_bytes_of_masked_words_are_masked_low_bytes() -> None:
    """Why dropping high bytes on the wire is the smaller ring: carries only go up."""
    words = np.full(100, 0x00FFFFFF, np.uint32)
    add_keystream(NIST_KEY, words, 0, 1)
    mask = np.frombuffer(WHOLE[:400], "<u4")
    assert (words % 2**24 == (0x00FFFFFF + mask.astype(np.uint64)) % 2**24).all()


def refusals() -> list[dict]:
    return [
        {"keys": [MaskKey(bytes(31), 1)]},
        {"keys": [MaskKey(bytes(32), 1), MaskKey(bytes(32), 0)]},
        {"keys": [MaskKey(bytes(32), 2)]},
        {"start_byte": 2},
        {"start_byte": 7},
        {"threads": 0},
        {"chunk_nbytes": 12},
        {"chunk_nbytes": 0},
        {"chunk_nbytes": 2 * CHUNK_NBYTES},
        {"words": np.zeros(8, np.int32)},
        {"words": np.zeros(8, np.float32)},
        {"words": np.zeros((2, 4), np.uint32)},
        {"words": np.zeros(16, np.uint32)[::2]},
    ]


@pytest.mark.parametrize("change", refusals())
def test_what_cannot_be_masked_is_refused_untouched(change: dict) -> None:
    arguments = {"words": np.zeros(8, np.uint32), "start_byte": 0, "keys": [MaskKey(bytes(32), 1)]} | change
    with pytest.raises(ValueError):
        apply_masks(**arguments)
    assert not arguments["words"].any()


@pytest.mark.parametrize("start", [-4, 16 << 128])
def test_a_position_outside_the_stream_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match="no byte"):
        Keystream(bytes(32), start)


@pytest.mark.parametrize("sign", [0, 2, -2])
def test_a_mask_is_added_or_subtracted(sign: int) -> None:
    with pytest.raises(ValueError, match="added or subtracted"):
        add_keystream(bytes(32), np.zeros(4, np.uint32), 0, sign)


def test_a_mask_key_does_not_show_its_key() -> None:
    key = MaskKey(bytes(range(32)), -1)
    assert repr(key) == str(key) == f"{key}" == "MaskKey(sign=-1)"


def test_extra_memory_is_a_chunk_a_thread() -> None:
    words = np.zeros(1 << 20, np.uint32)
    keys = [MaskKey(bytes([i]) * 32, 1) for i in range(8)]
    apply_masks(words[:10], 0, keys)
    tracemalloc.start()
    apply_masks(words, 0, keys, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * CHUNK_NBYTES


def test_different_keys_make_different_streams() -> None:
    streams = [keystream(bytes(31) + bytes([i]), 0, 64) for i in range(8)]
    assert all(a != b for a, b in pairwise(sorted(streams)))
