"""A blob that is kept in memory only: a message of secure aggregation. `worker.ports.BlobSink`."""

from __future__ import annotations

import hashlib

from ssd.digest import CHUNK_BYTES, blob_digest
from ssd_wire.messages import BlobRef
from worker.errors import BlobUnavailable, LinkBroken
from worker.ports import Buffer


class MemoryBlob:
    """Every chunk is checked as it arrives. The caller has checked that the blob is small enough.

    Args:
        blob: what is to come.
    """

    def __init__(self, blob: BlobRef) -> None:
        self._blob = blob
        self._chunks: tuple[bytes, ...] = ()
        self._content = bytearray()

    @property
    def received(self) -> int:
        """Bytes that are here and checked."""
        return len(self._content)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return len(self._content) == self._blob.size

    def content(self) -> bytes:
        """The whole blob."""
        return bytes(self._content)

    def expect(self, size: int, chunk_digests: bytes) -> None:
        """Take the chunk list; see `BlobSink.expect`."""
        chunks = tuple(chunk_digests[start : start + 32] for start in range(0, len(chunk_digests), 32))
        try:
            good = size == self._blob.size and blob_digest(size, chunks) == self._blob.digest
        except ValueError:
            good = False
        if not good:
            raise BlobUnavailable("the coordinator serves something else than the message it named")
        self._chunks = chunks

    def put(self, offset: int, data: Buffer) -> None:
        """Store one chunk; see `BlobSink.put`."""
        expected = min(CHUNK_BYTES, self._blob.size - len(self._content))
        if offset != len(self._content) or len(data) != expected or not expected:
            raise LinkBroken("bad_offset", f"{len(data)} bytes at {offset}, expected {expected}")
        number = offset // CHUNK_BYTES
        if number >= len(self._chunks) or hashlib.sha256(data).digest() != self._chunks[number]:
            raise LinkBroken("corrupt_chunk", f"chunk {number} of a message arrived damaged")
        self._content += data
