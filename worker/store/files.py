"""Files and directories of the state directory: the only place that syncs and renames."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import StateDirectoryLocked, StorageFailed

MIN_SPARE_BYTES = 1 << 20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def storage_faults(directory: Path) -> Iterator[None]:
    """Turn an `OSError` into the sentence an operator can act on."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"the state directory {directory} cannot be used: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename else "")
            + "; make it writable and make room, then start the worker again",
            full=error.errno in {errno.ENOSPC, errno.EDQUOT},
        ) from error


class DirectoryLock:
    """Exclusive use of a state directory for the life of the process."""

    def __init__(self, directory: Path) -> None:
        with storage_faults(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StateDirectoryLocked(
                f"another worker uses the state directory {directory}; give this one its own with --state-dir"
            ) from None

    def release(self) -> None:
        """Let others in."""
        self._file.close()


def boot_id() -> str:
    """Tells one boot of the machine from another; empty where the system does not say."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def sync_file(path: Path) -> None:
    """Have the file's content survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


sync_directory = sync_file
"""Have the directory's entries (renames, removals) survive a power cut."""


def remove(path: Path) -> None:
    """Remove a file; an absent one is no error."""
    path.unlink(missing_ok=True)


def map_file(path: Path) -> memoryview:
    """A file's bytes, mapped; the file may be removed meanwhile.

    Raises:
        StorageFailed: it is gone or empty.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise StorageFailed(f"the file {path} cannot be read: {error}") from error


def write_file(path: Path, content: memoryview) -> None:
    """Make `path` hold exactly this. A file already there is overwritten in place: its pages are reused."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(handle, content[written:], written)
        os.ftruncate(handle, len(content))
    finally:
        os.close(handle)


class SpareFiles:
    """Files nobody wants any more, kept to be overwritten: writing into pages that are there is several times
    cheaper than having the system find new ones, and every round writes a model and an update anew.

    A spare is used again only for the same purpose and length, so that a mapping of it that somebody forgot to
    close never loses the pages under it. Bounded by `max_bytes`; beyond it files are removed.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._mutex = threading.Lock()
        self._spares: list[tuple[str, int, Path]] = []
        self._made = 0

    def give(self, purpose: str, path: Path) -> None:
        """Take a file out of use; an absent one is no error."""
        with self._mutex:
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                return
            if size < MIN_SPARE_BYTES or sum(spare[1] for spare in self._spares) + size > self._max_bytes:
                remove(path)
                return
            self._made += 1
            spare = self._directory / f"{self._made}.spare"
            path.replace(spare)
            self._spares.append((purpose, size, spare))

    def take(self, purpose: str, size: int, path: Path) -> bool:
        """Move a spare of this purpose and size to `path`; False if there is none."""
        with self._mutex:
            for entry in self._spares:
                if entry[:2] == (purpose, size):
                    self._spares.remove(entry)
                    entry[2].replace(path)
                    return True
            return False

    def clear(self) -> None:
        """Remove all of them, and whatever an earlier process left."""
        with self._mutex:
            self._spares.clear()
            for path in self._directory.iterdir():
                remove(path)


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunk_list(path: Path, chunk_bytes: int) -> bytes:
    """SHA-256 of every chunk of the file, concatenated; the file is never in memory as a whole."""
    digests = []
    with path.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            digests.append(hashlib.sha256(chunk).digest())
    return b"".join(digests)
