"""A blob on its way in: a partial file that grows chunk by chunk. `worker.ports.BlobSink`.

Every chunk of an ordinary blob is hashed as it arrives. A model vector or delta is not: its receiver checks the
model digest of what comes of it anyway, and hashing each byte twice would be a third of the worker's work. Only when
that digest is wrong `find_damage` compares the chunks with the blob's list, so that a damaged one is fetched again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from ssd.digest import CHUNK_BYTES, blob_digest
from ssd_wire.messages import BlobRef
from worker.errors import BlobUnavailable, LinkBroken
from worker.ports import Buffer
from worker.store.files import storage_faults


class Hasher(Protocol):
    """What `hashlib` returns."""

    def update(self, data: Buffer, /) -> None:
        """Take in more bytes."""
        ...

    def copy(self) -> Hasher:
        """One that has seen the same bytes."""
        ...

    def hexdigest(self) -> str:
        """The hash of what was seen so far."""
        ...


class PartialBlob:
    """The beginning of a blob in a file. What an earlier process left there is checked before it counts.

    Args:
        blob: what is to come.
        path: the file; kept when the sink is closed.
        check_chunks: hash every chunk as it arrives.
        running: a hash that shall see the content in order, for the caller's own check.
        fresh: whatever the file holds is rubbish to be overwritten.

    Not for concurrent use; the transport calls it from one thread at a time.
    """

    def __init__(
        self,
        blob: BlobRef,
        path: Path,
        *,
        check_chunks: bool = True,
        running: Hasher | None = None,
        fresh: bool = False,
    ) -> None:
        self.path = path
        self._blob = blob
        self._check_chunks = check_chunks
        self._start = running
        self._running = None if running is None else running.copy()
        self._chunks: tuple[bytes, ...] = ()
        self._listed = False
        with storage_faults(path.parent):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._file).st_size
            left = 0 if fresh else max(0, min(size, blob.size - 1))
            # Whole chunks only, and never all of it: the offset asked for must be a chunk's beginning.
            self._received = left - left % CHUNK_BYTES
            os.ftruncate(self._file, blob.size if fresh else self._received)

    @property
    def received(self) -> int:
        """Bytes that are here; those of an earlier process are checked by `expect`."""
        return self._received

    @property
    def complete(self) -> bool:
        """Whether every byte is here (and checked, if chunks are)."""
        return self._listed and self._received == self._blob.size

    def digest(self) -> str:
        """What the running hash makes of the whole content."""
        assert self._running is not None  # the caller gave one
        return self._running.hexdigest()

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
        first = not self._listed
        self._chunks, self._listed = chunks, True
        if first and self._received and self.find_damage():
            raise LinkBroken(
                "corrupt_chunk", "what an earlier process left on disk is damaged; fetching it again"
            )

    def find_damage(self) -> bool:
        """Compare what is here with the chunk list; from the first bad chunk on it counts as not received."""
        before, good = self._received, 0
        running = None if self._start is None else self._start.copy()
        while good < before:
            with storage_faults(self.path.parent):
                piece = os.pread(self._file, min(CHUNK_BYTES, before - good), good)
            if hashlib.sha256(piece).digest() != self._chunks[good // CHUNK_BYTES]:
                break
            if running is not None:
                running.update(piece)
            good += len(piece)
        self._received, self._running = good, running
        return good < before

    def put(self, offset: int, data: Buffer) -> None:
        """Store one chunk; see `BlobSink.put`."""
        if not self._listed:
            raise BlobUnavailable(f"blob {self._blob.digest} came without its chunk list")
        expected = min(CHUNK_BYTES, self._blob.size - self._received)
        if offset != self._received or len(data) != expected or not expected:
            raise LinkBroken(
                "bad_offset", f"{len(data)} bytes at {offset}, expected {expected} at {self._received}"
            )
        number = offset // CHUNK_BYTES
        if self._check_chunks and hashlib.sha256(data).digest() != self._chunks[number]:
            raise LinkBroken("corrupt_chunk", f"chunk {number} of blob {self._blob.digest} arrived damaged")
        if self._running is not None:
            self._running.update(data)
        with storage_faults(self.path.parent):
            written = 0
            view = memoryview(data)
            while written < len(view):
                written += os.pwrite(self._file, view[written:], offset + written)
        self._received += len(data)

    def close(self) -> None:
        """Keep the file for the next try, without a beginning that is not there."""
        if not self.complete:
            os.ftruncate(self._file, self._received)
        os.close(self._file)
