"""Digests of blobs and of JSON values.

A blob's digest is taken over the list of its chunk digests, not over its bytes, so chunks can be hashed in
parallel, a corrupt chunk is named at once, and a transfer resumes without reading again what it has:

    digest = SHA-256(b"ssd-blob-v1" | size as u64 little-endian | SHA-256 of every 1 MiB chunk, in order)

The size is part of the hash, so no two lengths share a digest, and an empty blob has no chunks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20
BLOB_DOMAIN = b"ssd-blob-v1"

Buffer = bytes | bytearray | memoryview | NDArray[Any]
"""What the byte functions of this library read: anything contiguous that exposes its memory."""


def byte_view(data: Buffer) -> memoryview:
    """A flat view of `data` as unsigned bytes; nothing is copied.

    Raises:
        TypeError: the data is not contiguous.
    """
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    if view.nbytes == 0:
        return memoryview(b"")
    if not view.contiguous:
        raise TypeError("the bytes are not contiguous")
    return view.cast("B") if view.format != "B" or view.ndim != 1 else view


def chunk_digests(data: Buffer) -> tuple[bytes, ...]:
    """SHA-256 (32 bytes) of each 1 MiB chunk, the last one possibly shorter; `()` for empty data."""
    view = byte_view(data)
    return tuple(
        hashlib.sha256(view[start : start + CHUNK_BYTES]).digest()
        for start in range(0, view.nbytes, CHUNK_BYTES)
    )


def blob_digest(size: int, chunks: Sequence[bytes]) -> str:
    """The blob digest (64 hex digits) of `size` bytes whose chunk digests are `chunks`.

    Raises:
        ValueError: the number of chunks or the length of a chunk digest does not fit the size.
    """
    if not 0 <= size < 1 << 64:
        raise ValueError(f"a blob cannot have {size} bytes")
    expected = -(-size // CHUNK_BYTES)
    if len(chunks) != expected:
        raise ValueError(f"{size} bytes have {expected} chunks, not {len(chunks)}")
    if any(len(chunk) != 32 for chunk in chunks):
        raise ValueError("a chunk digest is 32 bytes long")
    hasher = hashlib.sha256(BLOB_DOMAIN)
    hasher.update(size.to_bytes(8, "little"))
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def digest_bytes(data: Buffer) -> str:
    """The blob digest of bytes in memory (or mapped)."""
    return blob_digest(byte_view(data).nbytes, chunk_digests(data))


class BlobHasher:
    """The blob digest of bytes that arrive in pieces of any size, in order."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._current = hashlib.sha256()

    @property
    def size(self) -> int:
        """Bytes seen so far."""
        return self._size

    def update(self, data: Buffer) -> None:
        """Append `data`."""
        view = byte_view(data)
        start = 0
        while start < view.nbytes:
            room = CHUNK_BYTES - self._size % CHUNK_BYTES
            piece = view[start : start + room]
            self._current.update(piece)
            start += piece.nbytes
            self._size += piece.nbytes
            if self._size % CHUNK_BYTES == 0:
                self._chunks.append(self._current.digest())
                self._current = hashlib.sha256()

    def finish(self) -> tuple[int, tuple[bytes, ...], str]:
        """Size, chunk digests and blob digest of everything seen so far; more may follow."""
        chunks = tuple(self._chunks)
        if self._size % CHUNK_BYTES:
            chunks += (self._current.digest(),)
        return self._size, chunks, blob_digest(self._size, chunks)


def canonical_json(value: object) -> bytes:
    """The one JSON form of a value: keys sorted, no spaces, UTF-8, no NaN or infinity.

    Raises:
        ValueError: the value holds NaN or infinity.
        TypeError: the value holds something JSON has no form for, or a key that is not a string.
    """
    _refuse_other_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def json_digest(value: object) -> str:
    """Hex SHA-256 of the canonical JSON form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _refuse_other_keys(value: object) -> None:
    # json.dumps would silently turn {1: ...} into {"1": ...}: two values, one digest.
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a JSON key must be a string, not {key!r}")
            _refuse_other_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_other_keys(item)


def little_endian(values: NDArray[Any]) -> NDArray[Any]:
    """The same values, contiguous and in little-endian byte order; a copy only where one is needed."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
