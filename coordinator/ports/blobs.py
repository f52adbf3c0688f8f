"""Content-addressed blobs as a port: model versions, deltas and artefacts, which are named by their digest."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ssd_wire.messages import BlobRef


class BlobWriter(Protocol):
    """A blob being written. Behaviour: nothing is visible until `finish`; `discard` or process death leaves nothing;
    writers do not disturb each other.
    """

    def write(self, data: memoryview | bytes | bytearray) -> None: ...

    def finish(self) -> BlobRef:
        """Behaviour: when it returns, the whole blob is visible and survives power loss; before, none of it is visible.

        Repeated, it returns the same again. The same content written twice is one blob.
        """
        ...

    def discard(self) -> None: ...


class BlobReader(Protocol):
    """An open blob. Behaviour: it keeps working if the blob is removed meanwhile."""

    info: BlobRef
    chunk_digests: tuple[bytes, ...]

    def read(self, offset: int, size: int) -> bytes: ...

    def map(self) -> NDArray[np.uint8]:
        """The whole blob as a read-only memory-mapped [size] uint8 array."""
        ...

    def close(self) -> None: ...


class Blobs(Protocol):
    """Content-addressed blobs. A missing blob raises `coordinator.errors.BlobMissing`, a full or read-only
    medium `StorageFailed`.
    """

    def create(self) -> BlobWriter: ...

    def open(self, digest: str) -> BlobReader: ...

    def exists(self, digest: str) -> bool: ...

    def verify(self, digest: str) -> None:
        """Behaviour: re-hashes the content; raises `BlobCorrupt` naming the blob and the first bad chunk."""
        ...

    def remove(self, digest: str) -> None:
        """Behaviour: an absent blob is no error."""
        ...

    def digests(self) -> frozenset[str]: ...

    def lend(self, digest: str, path: Path) -> None:
        """Behaviour: puts the blob's content at `path`, which must not exist, for another process to read; it stays
        there if the blob is removed. Nobody may write to it: it may be the very file of the blob.
        """
        ...

    def free_bytes(self) -> int: ...
