"""An event file of TensorBoard that is only ever appended to, however often and from wherever it is written on.

What is in it already is read back from it, so nothing is written twice; a torn end, of a writer that was killed, is
cut off. One writer at a time: the file is locked.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from coordinator.cli.track.scalars import Row
from coordinator.errors import StateDirectoryLocked, StorageFailed

NAME = "events.out.tfevents.0000000000.ssd-coordinator"
VERSION = "brain.Event:2"
"""What every event file begins with."""
_HEAD, _FOOT = 12, 4
"""Bytes around a record: its length and two checksums."""
_LONGEST = 16 << 20
"""No record of ours is longer."""


class EventFile:
    """One run's file, in `folder`, which is made.

    Raises:
        StorageFailed: the file cannot be made, read or written.
        StateDirectoryLocked: another process writes it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._file: IO[bytes] = os.fdopen(descriptor, "r+b")
        except OSError as error:
            raise StorageFailed(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise StateDirectoryLocked(f"{self.path} is being written by another process") from error
        self._writer = RecordWriter(self._file)
        self._written: set[tuple[str, int]] = set()
        good = 0
        for event, end in _records(self._file):
            good = end
            self._written.update((value.tag, event.step) for value in event.summary.value)
        self._file.seek(good)
        self._file.truncate()
        if good == 0:
            self._append(Event(wall_time=time.time(), file_version=VERSION))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Iterable[Row]) -> int:
        """Write what is not there yet, and flush; how many scalars that were."""
        new = 0
        for row in rows:
            fresh = {tag: value for tag, value in row.values.items() if (tag, row.step) not in self._written}
            if not fresh:
                continue
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(fresh.items())]
            at = row.at or time.time()
            self._append(Event(wall_time=at, step=row.step, summary=Summary(value=values)))
            self._written.update((tag, row.step) for tag in fresh)
            new += len(fresh)
        try:
            self._file.flush()
        except OSError as error:
            raise StorageFailed(f"{self.path} cannot be written: {error.strerror}") from error
        return new

    def _append(self, event: Event) -> None:
        try:
            self._writer.write(event.SerializeToString())
        except OSError as error:
            raise StorageFailed(f"{self.path} cannot be written: {error.strerror}") from error


def _records(file: IO[bytes]) -> Iterator[tuple[Event, int]]:
    """Every whole record, and where it ends."""
    file.seek(0)
    end = 0
    while len(head := file.read(_HEAD)) == _HEAD:
        (length,) = struct.unpack("<Q", head[:8])
        if length > _LONGEST:
            return
        body = file.read(length + _FOOT)
        if len(body) < length + _FOOT:
            return
        try:
            event = Event.FromString(body[:length])
        except DecodeError:
            return
        end += _HEAD + length + _FOOT
        yield event, end
