"""Blobs in memory: for tests and simulations, with the behaviour of the durable ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import BlobCorrupt, BlobMissing, StorageFailed
from ssd.digest import CHUNK_BYTES, BlobHasher, byte_view, chunk_digests
from ssd_wire.messages import BlobRef


class MemoryBlobWriter:
    """`coordinator.ports.blobs.BlobWriter` in memory."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._hasher = BlobHasher()
        self._data: bytearray | None = bytearray()
        self._info: BlobRef | None = None

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """See `coordinator.ports.blobs.BlobWriter`."""
        if self._data is None:
            raise ValueError("the blob is finished or discarded")
        view = byte_view(data)
        if view.nbytes > self._blobs.free_bytes() - len(self._data):
            self.discard()
            raise StorageFailed("writing a blob failed: the memory set aside for blobs is full")
        self._hasher.update(view)
        self._data += view

    def finish(self) -> BlobRef:
        """See `coordinator.ports.blobs.BlobWriter`."""
        if self._info is not None:
            return self._info
        if self._data is None:
            raise ValueError("the blob was discarded")
        size, chunks, digest = self._hasher.finish()
        self._info = BlobRef(digest=digest, size=size)
        self._blobs.contents[digest] = (bytes(self._data), chunks)
        self._data = None
        return self._info

    def discard(self) -> None:
        """See `coordinator.ports.blobs.BlobWriter`. After `finish` it does nothing."""
        self._data = None


class MemoryBlobReader:
    """`coordinator.ports.blobs.BlobReader` in memory."""

    def __init__(self, digest: str, data: bytes, chunks: tuple[bytes, ...]) -> None:
        self.info = BlobRef(digest=digest, size=len(data))
        self.chunk_digests = chunks
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        """See `coordinator.ports.blobs.BlobReader`. Shorter than `size` only at the end of the blob."""
        if offset < 0 or size < 0 or offset > self.info.size:
            raise ValueError(f"bytes {offset}+{size} of a blob of {self.info.size}")
        return self._data[offset : offset + size]

    def map(self) -> NDArray[np.uint8]:
        """See `coordinator.ports.blobs.BlobReader`."""
        return np.frombuffer(self._data, np.uint8)

    def close(self) -> None:
        """See `coordinator.ports.blobs.BlobReader`."""


class MemoryBlobs:
    """`coordinator.ports.blobs.Blobs` in memory.

    Args:
        capacity: bytes all blobs together may have; beyond it writing raises `StorageFailed`.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.contents: dict[str, tuple[bytes, tuple[bytes, ...]]] = {}
        self._capacity = capacity

    def create(self) -> MemoryBlobWriter:
        """See `coordinator.ports.blobs.Blobs`."""
        return MemoryBlobWriter(self)

    def open(self, digest: str) -> MemoryBlobReader:
        """See `coordinator.ports.blobs.Blobs`."""
        if digest not in self.contents:
            raise BlobMissing(f"blob {digest[:80]} is not here")
        return MemoryBlobReader(digest, *self.contents[digest])

    def exists(self, digest: str) -> bool:
        """See `coordinator.ports.blobs.Blobs`."""
        return digest in self.contents

    def verify(self, digest: str) -> None:
        """See `coordinator.ports.blobs.Blobs`."""
        reader = self.open(digest)
        for number, expected in enumerate(reader.chunk_digests):
            if chunk_digests(reader.read(number * CHUNK_BYTES, CHUNK_BYTES)) != (expected,):
                at = number * CHUNK_BYTES
                raise BlobCorrupt(f"blob {digest} is damaged: chunk {number} (from byte {at}) is damaged")

    def remove(self, digest: str) -> None:
        """See `coordinator.ports.blobs.Blobs`."""
        self.contents.pop(digest, None)

    def digests(self) -> frozenset[str]:
        """See `coordinator.ports.blobs.Blobs`."""
        return frozenset(self.contents)

    def lend(self, digest: str, path: Path) -> None:
        """See `coordinator.ports.blobs.Blobs`."""
        path.write_bytes(self.open(digest).read(0, len(self.contents[digest][0])))

    def free_bytes(self) -> int:
        """See `coordinator.ports.blobs.Blobs`."""
        return self._capacity - sum(len(data) for data, _ in self.contents.values())
