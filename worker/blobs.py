"""A blob on its way in: a partial file whose chunks are checked one by one. `worker.ports.BlobSink`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ssd.digest import CHUNK_BYTES, blob_digest
from worker.core.messages import Blob
from worker.errors import BlobUnavailable, LinkBroken
from worker.files import storage_faults
from worker.ports import Buffer


class PartialBlob:
    """The blob's verified beginning in a file. A file left by an earlier process is checked before it counts.

    Not for concurrent use; the transport calls it from one thread at a time.
    """

    def __init__(self, blob: Blob, path: Path) -> None:
        self._blob = blob
        self._path = path
        self._chunks: tuple[bytes, ...] = ()
        with storage_faults(path.parent):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            left = max(0, min(os.fstat(self._file).st_size, blob.size - 1))
            # Whole chunks only, and never all of it: the offset asked for must be a chunk's beginning.
            self._received = left - left % CHUNK_BYTES
            os.ftruncate(self._file, self._received)
        self._checked = False

    @property
    def received(self) -> int:
        """Bytes that are here; those of an earlier process are checked by `expect`."""
        return self._received

    @property
    def complete(self) -> bool:
        """Whether every byte is here and checked."""
        return self._checked and self._received == self._blob.size

    def expect(self, size: int, chunk_digests: bytes) -> None:
        """Take the chunk list; see `BlobSink.expect`."""
        chunks = tuple(chunk_digests[start : start + 32] for start in range(0, len(chunk_digests), 32))
        try:
            listed = blob_digest(size, chunks)
        except ValueError as error:
            raise BlobUnavailable(
                f"the chunk list of blob {self._blob.digest} is malformed: {error}"
            ) from error
        if size != self._blob.size or listed != self._blob.digest:
            raise BlobUnavailable(
                f"the coordinator serves something else under the digest {self._blob.digest}"
            )
        self._chunks = chunks
        if not self._checked:
            self._check_left()

    def _check_left(self) -> None:
        """Check what an earlier process left behind; a bad chunk and all after it are fetched again."""
        self._checked = True
        started = self._received
        good = 0
        while good < started:
            piece = os.pread(self._file, CHUNK_BYTES, good)
            if hashlib.sha256(piece).digest() != self._chunks[good // CHUNK_BYTES]:
                break
            good += len(piece)
        self._received = good
        if good < started:
            raise LinkBroken(
                "corrupt_chunk", f"chunk {good // CHUNK_BYTES} on disk is damaged; fetching it again"
            )

    def put(self, offset: int, data: Buffer) -> None:
        """Check and store one chunk; see `BlobSink.put`."""
        if not self._checked:
            raise BlobUnavailable(f"blob {self._blob.digest} came without its chunk list")
        expected = min(CHUNK_BYTES, self._blob.size - self._received)
        if offset != self._received or len(data) != expected or not expected:
            raise LinkBroken(
                "bad_offset", f"{len(data)} bytes at {offset}, expected {expected} at {self._received}"
            )
        number = offset // CHUNK_BYTES
        if hashlib.sha256(data).digest() != self._chunks[number]:
            raise LinkBroken("corrupt_chunk", f"chunk {number} of blob {self._blob.digest} arrived damaged")
        with storage_faults(self._path.parent):
            written = 0
            view = memoryview(data)
            while written < len(view):
                written += os.pwrite(self._file, view[written:], offset + written)
        self._received += len(data)

    def close(self) -> None:
        """Keep the file for the next try."""
        os.close(self._file)
