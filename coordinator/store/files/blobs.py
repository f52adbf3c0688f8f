"""Content-addressed blobs as files.

`<state_dir>/blobs/ab/<digest>` holds the bytes, `<digest>.chunks` beside it the SHA-256 of every 1 MiB chunk; the two
together prove the digest, so a truncated or exchanged file is noticed when it is opened and a damaged chunk
is named by `verify`. A blob exists if and only if its data file does. Writing: both files under a temporary
name in `blobs/tmp`, fsync, rename the chunk list, rename the data, fsync the directory. What a dead process left
in `tmp`, and chunk lists without data, are removed at start; the state directory's lock makes that safe.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import re
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.errors import BlobCorrupt, BlobMissing
from coordinator.store.failures import storage_failed
from ssd.digest import CHUNK_BYTES, BlobHasher, blob_digest, byte_view, chunk_digests
from ssd.files import no_link, sync_folder
from ssd_wire.messages import BlobRef

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
"""How file systems say that they have no (more) hard links for this."""


def _write_all(descriptor: int, data: memoryview | bytes | bytearray) -> None:
    rest = byte_view(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class FileBlobWriter:
    """`coordinator.ports.blobs.BlobWriter` into a temporary file."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._temporary = root / "tmp" / name
        self._hasher = BlobHasher()
        self._info: BlobRef | None = None
        try:
            self._descriptor = os.open(
                self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise storage_failed(error, self._root, "creating a blob") from error

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """See `coordinator.ports.blobs.BlobWriter`."""
        if self._descriptor < 0:
            raise ValueError("the blob is finished or discarded")
        self._hasher.update(data)
        try:
            _write_all(self._descriptor, data)
        except OSError as error:
            self.discard()
            raise storage_failed(error, self._root, "writing a blob") from error

    def finish(self) -> BlobRef:
        """See `coordinator.ports.blobs.BlobWriter`."""
        if self._info is not None:
            return self._info
        if self._descriptor < 0:
            raise ValueError("the blob was discarded")
        size, chunks, digest = self._hasher.finish()
        try:
            self._publish(digest, chunks)
        except OSError as error:
            self.discard()
            raise storage_failed(error, self._root, "storing a blob") from error
        self._info = BlobRef(digest=digest, size=size)
        return self._info

    def _publish(self, digest: str, chunks: tuple[bytes, ...]) -> None:
        os.fsync(self._descriptor)
        self._close()
        listing = self._temporary.with_suffix(".chunks")
        with open(listing, "wb", opener=no_link) as file:
            file.write(b"".join(chunks))
            file.flush()
            os.fsync(file.fileno())
        target = _path(self._root, digest)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self._root)
        # Renaming over an existing blob costs nothing and heals it if its file was damaged.
        listing.replace(_listing(target))
        self._temporary.replace(target)
        sync_folder(target.parent)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def discard(self) -> None:
        """See `coordinator.ports.blobs.BlobWriter`. After `finish` it does nothing."""
        with contextlib.suppress(OSError):
            self._close()
        for path in (self._temporary, self._temporary.with_suffix(".chunks")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


class FileBlobReader:
    """`coordinator.ports.blobs.BlobReader` over an open file."""

    def __init__(self, root: Path, digest: str) -> None:
        self._path = _path(root, digest)
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _missing(self._path, digest) from error
        except OSError as error:
            raise storage_failed(error, self._path, "opening a blob") from error
        try:
            size, chunks = self._prove(digest)
        except BaseException:
            self.close()
            raise
        self.info = BlobRef(digest=digest, size=size)
        self.chunk_digests = chunks

    def _prove(self, digest: str) -> tuple[int, tuple[bytes, ...]]:
        """Size and chunk digests, if together they have the blob's digest."""
        try:
            size = os.fstat(self._descriptor).st_size
            joined = _listing(self._path).read_bytes()
        except FileNotFoundError as error:
            raise _corrupt(self._path, "its list of chunk digests is missing") from error
        except OSError as error:
            raise storage_failed(error, self._path, "opening a blob") from error
        chunks = tuple(joined[at : at + _DIGEST_BYTES] for at in range(0, len(joined), _DIGEST_BYTES))
        if not _proves(size, chunks, digest):
            raise _corrupt(self._path, f"its {size} bytes and its list of chunk digests do not prove it")
        return size, chunks

    def read(self, offset: int, size: int) -> bytes:
        """See `coordinator.ports.blobs.BlobReader`. Shorter than `size` only at the end of the blob."""
        if offset < 0 or size < 0 or offset > self.info.size:
            raise ValueError(f"bytes {offset}+{size} of a blob of {self.info.size}")
        wanted = min(size, self.info.size - offset)
        try:
            data = os.pread(self._descriptor, wanted, offset)
            while len(data) < wanted:
                more = os.pread(self._descriptor, wanted - len(data), offset + len(data))
                if not more:
                    raise _corrupt(self._path, f"it ends at byte {offset + len(data)} of {self.info.size}")
                data += more
        except OSError as error:
            raise storage_failed(error, self._path, "reading a blob") from error
        return data

    def map(self) -> NDArray[np.uint8]:
        """See `coordinator.ports.blobs.BlobReader`. The array outlives `close`."""
        if self.info.size == 0:
            return np.frombuffer(b"", np.uint8)
        try:
            mapped = mmap.mmap(self._descriptor, self.info.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
            raise storage_failed(failure, self._path, "mapping a blob") from error
        return np.frombuffer(mapped, np.uint8)

    def close(self) -> None:
        """See `coordinator.ports.blobs.BlobReader`."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class FileBlobs:
    """`coordinator.ports.blobs.Blobs` in `<state_dir>/blobs`. Writers and readers may be used from different threads."""

    def __init__(self, state_dir: Path) -> None:
        self.root = root = state_dir / "blobs"
        self._numbers = itertools.count()
        try:
            (root / "tmp").mkdir(parents=True, exist_ok=True)
            # The journal may soon name what lies below: the way there must not be lost with the power.
            for directory in (root, state_dir, state_dir.absolute().parent):
                sync_folder(directory)
            for leftover in (root / "tmp").iterdir():
                leftover.unlink()
            for listing in root.glob("??/*.chunks"):
                if not listing.with_suffix("").exists():
                    listing.unlink()
        except OSError as error:
            raise storage_failed(error, root, "preparing the blob directory") from error

    def create(self) -> FileBlobWriter:
        """See `coordinator.ports.blobs.Blobs`."""
        return FileBlobWriter(self.root, f"{os.getpid()}-{next(self._numbers)}")

    def open(self, digest: str) -> FileBlobReader:
        """See `coordinator.ports.blobs.Blobs`. Raises `BlobCorrupt` if size or chunk list do not prove the digest."""
        return FileBlobReader(self.root, digest)

    def exists(self, digest: str) -> bool:
        """See `coordinator.ports.blobs.Blobs`."""
        return _DIGEST.fullmatch(digest) is not None and _path(self.root, digest).is_file()

    def verify(self, digest: str) -> None:
        """See `coordinator.ports.blobs.Blobs`."""
        reader = self.open(digest)
        try:
            for number, expected in enumerate(reader.chunk_digests):
                if chunk_digests(reader.read(number * CHUNK_BYTES, CHUNK_BYTES)) != (expected,):
                    at = number * CHUNK_BYTES
                    raise _corrupt(_path(self.root, digest), f"chunk {number} (from byte {at}) is damaged")
        finally:
            reader.close()

    def remove(self, digest: str) -> None:
        """See `coordinator.ports.blobs.Blobs`."""
        if _DIGEST.fullmatch(digest) is None:
            return
        path = _path(self.root, digest)
        try:
            # Data first: a list without data is cleaned up at start, data without its list would be corrupt.
            path.unlink(missing_ok=True)
            _listing(path).unlink(missing_ok=True)
        except OSError as error:
            raise storage_failed(error, path, "removing a blob") from error

    def digests(self) -> frozenset[str]:
        """See `coordinator.ports.blobs.Blobs`."""
        try:
            return frozenset(
                path.name for path in self.root.glob("??/*") if _DIGEST.fullmatch(path.name) is not None
            )
        except OSError as error:
            raise storage_failed(error, self.root, "listing the blobs") from error

    def lend(self, digest: str, path: Path) -> None:
        """See `coordinator.ports.blobs.Blobs`. A hard link where the file system has them, else a copy."""
        source = _path(self.root, digest)
        try:
            try:
                os.link(source, path)
            except FileNotFoundError as error:
                raise _missing(source, digest) from error
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(source, path)
        except OSError as error:
            raise storage_failed(error, path, "lending a blob") from error

    def free_bytes(self) -> int:
        """See `coordinator.ports.blobs.Blobs`."""
        try:
            found = os.statvfs(self.root)
        except OSError as error:
            raise storage_failed(error, self.root, "asking for free space") from error
        return found.f_bavail * found.f_frsize


def _proves(size: int, chunks: tuple[bytes, ...], digest: str) -> bool:
    try:
        return blob_digest(size, chunks) == digest
    except ValueError:
        return False


def _path(root: Path, digest: str) -> Path:
    if _DIGEST.fullmatch(digest) is None:
        # A digest may come from the wire; nothing but a digest ever becomes a path.
        raise BlobMissing(f"{digest[:80]!r} is not a blob digest")
    return root / digest[:2] / digest


def _listing(path: Path) -> Path:
    return path.with_name(path.name + ".chunks")


def _missing(path: Path, digest: str) -> BlobMissing:
    return BlobMissing(f"{path}: blob {digest} is not here: restore the state directory from a backup")


def _corrupt(path: Path, what: str) -> BlobCorrupt:
    return BlobCorrupt(f"{path} is damaged: {what}; restore the state directory from a backup")
