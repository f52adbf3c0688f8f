"""The journal and registry as a port: what was promised and committed, written before it is acted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from coordinator.ports.records import (
    AttemptCounts,
    AttemptRecord,
    ClientRecord,
    Json,
    RunRecord,
    VersionRecord,
)
from ssd.scaling import ScalingVector


class Journal(Protocol):
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

    def keep_client_history(self, round_number: int, attempt: int, client_history: Json) -> None:
        """Behaviour: keeps what happened to an attempt's clients, in place of what was kept of it before. Refuses an
        attempt that was never opened. Of the oldest attempts nothing is kept once there are `KEPT_CHRONICLES` newer.
        """
        ...

    def client_history(self, round_number: int, attempt: int) -> Json:
        """What `keep_client_history` last kept of an attempt of the current run; empty if nothing."""
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
