"""What the driver needs from the outside world, as protocols.

Every implementation of a port passes the same conformance tests. Records here are plain frozen data: the
driver turns them into core state and back; protobuf never appears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.ports.records import (
    AttemptCounts,
    AttemptRecord,
    ClientRecord,
    Json,
    RunRecord,
    VersionRecord,
)
from ssd.scaling import ScalingVector
from ssd.trust.names import Subject
from ssd_wire.messages import BlobRef


class Clock(Protocol):
    """Time. `monotonic` for durations, `wall` (Unix seconds) for records and display only."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class Store(Protocol):
    """The journal and registry. Every method is one durable transaction; returning means it is on disk.

    Behaviour common to all: a failure of the medium raises `coordinator.errors.StorageFailed` and changes
    nothing; a call that contradicts what is stored raises `coordinator.errors.JournalConflict` and changes
    nothing; repeating a call that already happened with equal arguments changes nothing and succeeds.
    Implementations may be called from any one thread at a time.
    """

    def federation_id(self) -> str:
        """32 hex digits made when the store was created."""
        ...

    def current_run(self) -> RunRecord | None: ...

    def create_run(self, run: RunRecord, initial: VersionRecord) -> None:
        """Behaviour: makes `run` current with version 0; refuses if another unfinished run is current."""
        ...

    def finish_run(self) -> None:
        """Behaviour: marks the current run finished; its records stay readable."""
        ...

    def reopen_run(self) -> None:
        """Behaviour: the current run, if it was finished, takes rounds again; refuses if there is no run."""
        ...

    def run_finished(self) -> bool: ...

    def register_clients(self, clients: Sequence[str], now: float) -> None:
        """Behaviour: adds the unknown ones; known ones are left as they are."""
        ...

    def assign(self, assignments: Mapping[str, tuple[int, ScalingVector | None]]) -> None:
        """Behaviour: fixes index and scaling vector of registered clients for ever. Refuses to change one, to
        give an index twice, and to assign an unregistered client.
        """
        ...

    def revoke_client(self, client: str) -> None: ...

    def clients(self) -> tuple[ClientRecord, ...]:
        """All registered clients, ordered by id."""
        ...

    def bindings(self) -> Mapping[str, str]:
        """Client -> the one worker that may act for it. Of the federation, not of a run."""
        ...

    def granted_workers(self) -> frozenset[str]:
        """Workers that may bring the clients that are theirs and no others."""
        ...

    def bind_clients(self, worker: str, clients: Sequence[str], now: float, *, granted: bool = False) -> None:
        """Behaviour: binds those nobody has; refuses all if one of them belongs to another worker. A client need not
        be registered. `granted`: somebody named them for the worker, which has no others from now on.
        """
        ...

    def move_client(self, client: str, worker: str, now: float) -> None:
        """Behaviour: binds the client to this worker, whoever had it."""
        ...

    def open_attempt(self, attempt: AttemptRecord) -> None:
        """Behaviour: refuses if another attempt is open or closed-but-uncommitted."""
        ...

    def close_attempt(
        self, round_number: int, attempt: int, accepted: Sequence[str], secure_sum: bytes = b""
    ) -> None:
        """Behaviour: journals the accepted set. Refuses unless the attempt is open (or closed with the same set).

        `secure_sum`, unless empty, is where the opening of a masked sum stands, journaled with the set; of a closed
        attempt it replaces what was kept before.
        """
        ...

    def secure_sum(self, round_number: int, attempt: int) -> bytes:
        """What `close_attempt` last kept for an attempt in flight; empty if nothing. Gone with commit or abandon."""
        ...

    def abandon_attempt(self, round_number: int, attempt: int, reason: str, now: float) -> None: ...

    def commit(self, version: VersionRecord, now: float) -> None:
        """Behaviour: in one transaction adds the version, marks its attempt committed and sets
        `last_committed_round` of the journaled accepted clients. Refuses unless the attempt is closed and the
        version is the newest plus one.
        """
        ...

    def attempts(self, limit: int | None = None) -> tuple[AttemptRecord, ...]:
        """Newest first."""
        ...

    def attempt_counts(self, limit: int) -> tuple[AttemptCounts, ...]:
        """The newest `limit` of `attempts`, newest first, counted where they are stored."""
        ...

    def keep_chronicle(self, round_number: int, attempt: int, chronicle: Json) -> None:
        """Behaviour: keeps what happened to an attempt's clients, in place of what was kept of it before. Refuses an
        attempt that was never opened. Of the oldest attempts nothing is kept once there are `KEPT_CHRONICLES` newer.
        """
        ...

    def chronicle(self, round_number: int, attempt: int) -> Json:
        """What `keep_chronicle` last kept of an attempt of the current run; empty if nothing."""
        ...

    def versions(self) -> tuple[VersionRecord, ...]:
        """Oldest first, including those whose blobs retention removed."""
        ...

    def chain(self) -> tuple[str, ...]:
        """One value a version, as `coordinator.store.journal.chain` defines them, oldest first. Behaviour: written with the
        version, in the same transaction, and never again.
        """
        ...

    def forget_version_blobs(self, numbers: Sequence[int]) -> None:
        """Behaviour: marks the blobs of these versions as removed (`retained = False`); newest is refused."""
        ...

    def record_evaluation(self, version: int, values: Mapping[str, float], now: float) -> None: ...

    def evaluations(self) -> tuple[tuple[int, Mapping[str, float]], ...]:
        """(version, values), oldest first."""
        ...

    def flag(self, name: str) -> bool:
        """A persisted switch, for example `paused`; False if never set."""
        ...

    def set_flag(self, name: str, value: bool) -> None: ...

    def close(self) -> None: ...


class BlobWriter(Protocol):
    """A blob being written. Nothing is visible until `finish`; `discard` or process death leaves nothing."""

    def write(self, data: memoryview | bytes | bytearray) -> None: ...

    def finish(self) -> BlobRef:
        """Behaviour: fsync, rename into place, fsync the directory. Idempotent if the blob exists already."""
        ...

    def discard(self) -> None: ...


class BlobReader(Protocol):
    """An open blob; keeps working if the blob is removed meanwhile."""

    info: BlobRef
    chunk_digests: tuple[bytes, ...]

    def read(self, offset: int, size: int) -> bytes: ...

    def map(self) -> NDArray[np.uint8]:
        """The whole blob as a read-only memory-mapped [size] uint8 array."""
        ...

    def close(self) -> None: ...


class Blobs(Protocol):
    """Content-addressed files. A missing blob raises `coordinator.errors.BlobMissing`, a full or read-only
    medium `StorageFailed`.
    """

    def create(self) -> BlobWriter: ...

    def open(self, digest: str) -> BlobReader: ...

    def exists(self, digest: str) -> bool: ...

    def verify(self, digest: str) -> None:
        """Behaviour: re-hashes the content; raises `BlobCorrupt` naming the file and the first bad chunk."""
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


class StagedBody(Protocol):
    """The body of an upload on its way in: RAM first, then disk."""

    size: int
    received: int

    def append(self, data: bytes | memoryview) -> None:
        """Behaviour: adds bytes at `received`; over `size` raises ValueError."""
        ...

    def view(self) -> NDArray[np.uint8]:
        """The received bytes as a read-only [received] uint8 array (memory or memory map)."""
        ...

    def discard(self) -> None:
        """Behaviour: gives its budget back; idempotent."""
        ...


class Staging(Protocol):
    """Budgeted room for uploads in flight."""

    def open(self, size: int) -> StagedBody | None:
        """A body with its whole room reserved (RAM budget, else disk budget), or None: no room now, hold."""
        ...

    def on_room(self, callback: Callable[[], None]) -> None:
        """Called (from any thread) whenever room was given back."""
        ...

    ram_used: int
    disk_used: int


class Identity(Protocol):
    """Who is calling. Never read from a message: the one exception, the hello's name, is what `None` stands for."""

    def subject(self, auth_context: Mapping[str, Sequence[bytes]]) -> Subject | None:
        """Who is calling, by what gRPC says of the connection.

        Behaviour: None if the transport cannot say (`--insecure`: everybody who reaches the port may do everything,
        and a worker is called what its hello says). A connection that may not be used, or whose certificate names
        nobody of this federation, raises `coordinator.errors.NotPermitted`.
        """
        ...
