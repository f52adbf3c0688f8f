"""Digests: the definition, chunk borders, and inputs that have no single form."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.digest import (
    CHUNK_BYTES,
    BlobHasher,
    blob_digest,
    canonical_json,
    chunk_digests,
    digest_bytes,
    json_digest,
)


def reference(data: bytes) -> str:
    chunks = [data[i : i + 2**20] for i in range(0, len(data), 2**20)]
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    return hashlib.sha256(b"ssd-blob-v1" + len(data).to_bytes(8, "little") + digests).hexdigest()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_blob_digest_is_what_the_docstring_says(size: int) -> None:
    data = bytes(np.random.default_rng(size).integers(0, 256, size, np.uint8))
    assert digest_bytes(data) == reference(data)
    assert len(chunk_digests(data)) == -(-size // CHUNK_BYTES)


@given(st.lists(st.integers(0, CHUNK_BYTES + 3), max_size=5))
@settings(max_examples=20, deadline=None)
def test_pieces_of_any_size_give_the_same_digest(sizes: list[int]) -> None:
    data = np.arange(sum(sizes), dtype=np.uint32).astype(np.uint8)
    hasher = BlobHasher()
    start = 0
    for size in sizes:
        hasher.update(data[start : start + size])
        start += size
    assert hasher.finish() == (data.size, chunk_digests(data), digest_bytes(data))
    assert hasher.finish() == hasher.finish(), "finishing must not change anything"
    assert hasher.size == data.size


def test_every_form_of_the_same_bytes_has_the_same_digest() -> None:
    values = np.arange(10, dtype="<f4")
    same = [values, values.tobytes(), bytearray(values.tobytes()), memoryview(values), values.reshape(2, 5)]
    assert len({digest_bytes(form) for form in same}) == 1
    with pytest.raises(TypeError):
        digest_bytes(np.zeros((4, 4), np.float32)[:, ::2])


def test_length_and_chunks_must_fit() -> None:
    chunk = bytes(32)
    for size, chunks in [(0, [chunk]), (1, []), (CHUNK_BYTES + 1, [chunk]), (1, [b"short"]), (-1, [])]:
        with pytest.raises(ValueError):
            blob_digest(size, chunks)


def test_moving_a_chunk_or_padding_with_zeros_changes_the_digest() -> None:
    data = bytearray(2 * CHUNK_BYTES)
    data[0] = 1
    swapped = data[CHUNK_BYTES:] + data[:CHUNK_BYTES]
    assert len({digest_bytes(data), digest_bytes(swapped), digest_bytes(data + b"\0")}) == 3


def test_equal_json_values_have_one_form() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": "ü"}) == '{"a":"ü","b":[1,2.5,null,true]}'.encode()
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    assert json_digest((1, 2)) == json_digest([1, 2])


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_numbers_json_does_not_know_are_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": [{None: 1}]}, object(), b"bytes", {"a": {1, 2}}])
def test_values_without_a_single_json_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)
