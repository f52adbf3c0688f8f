"""Room for uploads on their way in: RAM first, then disk, then none.

A body has its whole room reserved when it opens, so an upload that was let in never runs out half-way. RAM
bodies are exactly as large as declared and touch memory only as bytes arrive; the next body of that size gets the
memory of one that is done, because finding new pages takes as long as receiving into them. Disk bodies are unlinked
files: they vanish with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coordinator.store.failures import storage_failed

Room = TypeVar("Room")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PREALLOCATION = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class MemoryBody:
    """`coordinator.ports.staging.StagedBody` in RAM."""

    def __init__(
        self, memory: NDArray[np.uint8], release: Callable[[NDArray[np.uint8] | None], None]
    ) -> None:
        self.size = memory.size
        self.received = 0
        self._memory: NDArray[np.uint8] | None = memory
        self._lent: list[weakref.ref[Any]] = []
        """What keeps the memory in use as long as somebody reads one of the views."""
        self._release = release

    def append(self, data: bytes | memoryview) -> None:
        """See `coordinator.ports.staging.StagedBody`."""
        room = _room(self, self._memory)
        end = _end(self, data)
        room[self.received : end] = np.frombuffer(data, np.uint8)
        self.received = end

    def view(self) -> NDArray[np.uint8]:
        """See `coordinator.ports.staging.StagedBody`. The array outlives `discard`."""
        # Every array over these bytes, however it was cut out of this one, holds on to its buffer.
        whole = np.frombuffer(_room(self, self._memory).data, np.uint8)
        self._lent.append(weakref.ref(whole.base))
        seen = whole[: self.received]
        seen.flags.writeable = False
        return seen

    def discard(self) -> None:
        """See `coordinator.ports.staging.StagedBody`."""
        if self._memory is not None:
            memory, self._memory = self._memory, None
            # Where somebody still reads, nobody may write: that memory goes when its last view does.
            in_use = any(each() is not None for each in self._lent)
            self._release(None if in_use else memory)


class DiskBody:
    """`coordinator.ports.staging.StagedBody` in an unlinked file."""

    def __init__(self, size: int, descriptor: int, path: Path, release: Callable[[], None]) -> None:
        self.size = size
        self.received = 0
        self._descriptor: int | None = descriptor
        self._path = path
        self._release = release

    def append(self, data: bytes | memoryview) -> None:
        """See `coordinator.ports.staging.StagedBody`. Raises `StorageFailed` if the medium fails."""
        descriptor = _room(self, self._descriptor)
        end = _end(self, data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.pwrite(descriptor, rest, end - len(rest)) :]
        except OSError as error:
            raise storage_failed(error, self._path, "staging an upload") from error
        self.received = end

    def view(self) -> NDArray[np.uint8]:
        """See `coordinator.ports.staging.StagedBody`. The map outlives `discard`."""
        descriptor = _room(self, self._descriptor)
        if self.received == 0:
            return np.frombuffer(b"", np.uint8)
        try:
            mapped = mmap.mmap(descriptor, self.received, access=mmap.ACCESS_READ)
        except OSError as error:
            raise storage_failed(error, self._path, "reading a staged upload") from error
        return np.frombuffer(mapped, np.uint8)

    def discard(self) -> None:
        """See `coordinator.ports.staging.StagedBody`."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.close(descriptor)
            self._release()


class BudgetedStaging:
    """`coordinator.ports.staging.Staging`. Safe to use from several threads; one body belongs to one thread at a time.

    Args:
        root: directory of the disk bodies; made if absent, leftovers in it removed.
        ram_bytes: budget of the bodies in RAM.
        disk_bytes: budget of the bodies on disk.
        min_free_bytes: no disk body is opened that would leave the file system less than this.
    """

    def __init__(self, root: Path, ram_bytes: int, disk_bytes: int, min_free_bytes: int = 0) -> None:
        self._root = root
        self._ram_bytes = ram_bytes
        self._disk_bytes = disk_bytes
        self._min_free_bytes = min_free_bytes
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._spare: list[NDArray[np.uint8]] = []
        """Memory of RAM bodies that are done. With those in use it never exceeds the budget."""
        self.ram_used = 0
        self.disk_used = 0
        try:
            root.mkdir(parents=True, exist_ok=True)
            for leftover in root.iterdir():
                leftover.unlink()
        except OSError as error:
            raise storage_failed(error, root, "preparing the staging directory") from error

    def open(self, size: int, *, in_memory: bool = False) -> MemoryBody | DiskBody | None:
        """See `coordinator.ports.staging.Staging`. A full disk is no room, not an error."""
        if size < 0:
            raise ValueError(f"a body of {size} bytes")
        if self._reserve(ram=size):
            return MemoryBody(self._memory(size), lambda memory: self._give_back(ram=size, memory=memory))
        if in_memory and size <= self._ram_bytes:
            return None
        if not self._reserve(disk=size):
            return None
        descriptor = self._create(size)
        if descriptor is None:
            # Nobody could have been told that this room was taken, so nobody needs to hear that it is free.
            with self._lock:
                self.disk_used -= size
            return None
        return DiskBody(size, descriptor, self._root, lambda: self._give_back(disk=size))

    def on_room(self, callback: Callable[[], None]) -> None:
        """See `coordinator.ports.staging.Staging`."""
        with self._lock:
            self._callbacks.append(callback)

    def fits(self, size: int) -> bool:
        """Whether a body of `size` bytes could ever be opened, however empty the budgets are."""
        return size <= max(self._ram_bytes, self._disk_bytes)

    def _reserve(self, ram: int = 0, disk: int = 0) -> bool:
        with self._lock:
            if self.ram_used + ram > self._ram_bytes or self.disk_used + disk > self._disk_bytes:
                return False
            self.ram_used += ram
            self.disk_used += disk
            return True

    def _memory(self, size: int) -> NDArray[np.uint8]:
        """Room for a body whose size is reserved: spare memory of that size, else new."""
        with self._lock:
            for place, memory in enumerate(self._spare):
                if memory.size == size:
                    return self._spare.pop(place)
            while self._spare and self.ram_used + sum(each.size for each in self._spare) > self._ram_bytes:
                self._spare.pop(0)
        return np.empty(size, np.uint8)

    def _give_back(self, ram: int = 0, disk: int = 0, memory: NDArray[np.uint8] | None = None) -> None:
        with self._lock:
            self.ram_used -= ram
            self.disk_used -= disk
            if memory is not None and memory.size:
                self._spare.append(memory)
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    def _create(self, size: int) -> int | None:
        """An unlinked file with `size` bytes set aside, or None if the disk has no room for it."""
        try:
            found = os.statvfs(self._root)
            if found.f_bavail * found.f_frsize - size < self._min_free_bytes:
                return None
            descriptor, name = tempfile.mkstemp(dir=self._root)
            try:
                os.unlink(name)
                _set_aside(descriptor, size)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            if error.errno in _FULL:
                return None
            raise storage_failed(error, self._root, "staging an upload") from error
        return descriptor


def _set_aside(descriptor: int, size: int) -> None:
    try:
        if size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NO_PREALLOCATION:
            raise


def _room(body: MemoryBody | DiskBody, room: Room | None) -> Room:
    if room is None:
        raise ValueError(f"the body of {body.size} bytes was discarded")
    return room


def _end(body: MemoryBody | DiskBody, data: bytes | memoryview) -> int:
    end = body.received + len(data)
    if end > body.size:
        raise ValueError(f"{end} bytes for a body of {body.size}")
    return end
