"""The store in memory: for tests and simulations, with the behaviour of the durable one."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coordinator.errors import JournalConflict, StorageFailed
from coordinator.ports.records import (
    KEPT_CHRONICLES,
    AttemptCounts,
    AttemptRecord,
    ClientRecord,
    RunRecord,
    VersionRecord,
)
from coordinator.store.journal import chain, records, rules
from ssd.scaling import ScalingVector

Json = Any


@dataclass
class _Run:
    """A run and everything that belongs to it."""

    record: RunRecord
    versions: list[VersionRecord]
    chain: list[str]
    finished: bool = False
    places: dict[str, tuple[int, ScalingVector | None]] = field(default_factory=dict)
    included: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Client -> (last committed round, rounds included)."""
    attempts: dict[tuple[int, int], AttemptRecord] = field(default_factory=dict)
    """In the order they were opened."""
    evaluations: dict[int, Mapping[str, float]] = field(default_factory=dict)
    secure_sums: dict[tuple[int, int], bytes] = field(default_factory=dict)
    chronicles: dict[tuple[int, int], str] = field(default_factory=dict)
    """As JSON text, so that nobody changes what was kept."""


class MemoryStore:
    """`coordinator.ports.journal.Journal` in memory.

    `fail` may be set to a callable that is asked before every change and may raise `StorageFailed`.
    """

    def __init__(self) -> None:
        self._federation_id = secrets.token_hex(16)
        self._runs: list[_Run] = []
        self._clients: dict[str, ClientRecord] = {}
        self._flags: dict[str, bool] = {}
        self._bindings: dict[str, str] = {}
        self._granted: set[str] = set()
        self._lock = threading.RLock()
        self._closed = False
        self.fail: Callable[[str], None] | None = None

    def _changing(self, what: str) -> None:
        if self._closed:
            raise StorageFailed("the store is closed")
        if self.fail is not None:
            self.fail(what)

    def _active(self) -> _Run:
        run = self._runs[-1] if self._runs else None
        rules.active_run(run.record if run else None, run.finished if run else False)
        return self._runs[-1]

    def federation_id(self) -> str:
        """See `coordinator.ports.journal.Journal`."""
        return self._federation_id

    def current_run(self) -> RunRecord | None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return self._runs[-1].record if self._runs else None

    def create_run(self, run: RunRecord, initial: VersionRecord) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            current = self._runs[-1] if self._runs else None
            done = rules.check_create_run(
                run,
                initial,
                current.record if current else None,
                current.finished if current else False,
                current.versions[0] if current else None,
                {known.record.run_id for known in self._runs},
            )
            if not done:
                self._changing("create_run")
                first = replace(initial, retained=True)
                self._runs.append(_Run(record=run, versions=[first], chain=[chain.origin(run, first)]))

    def finish_run(self) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            if self._runs and self._runs[-1].finished:
                return
            run = self._active()
            if any(attempt.outcome in rules.IN_FLIGHT for attempt in run.attempts.values()):
                raise JournalConflict("an attempt is under way")
            self._changing("finish_run")
            run.finished = True

    def reopen_run(self) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            if not self._runs:
                raise JournalConflict("there is no run")
            if self._runs[-1].finished:
                self._changing("reopen_run")
                self._runs[-1].finished = False

    def run_finished(self) -> bool:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return bool(self._runs) and self._runs[-1].finished

    def register_clients(self, clients: Sequence[str], now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            self._changing("register_clients")
            for client in clients:
                self._clients.setdefault(client, ClientRecord(client=client, registered_at=now))

    def assign(self, assignments: Mapping[str, tuple[int, ScalingVector | None]]) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            run = self._active()
            fresh = rules.check_assign(assignments, self._clients, run.places)
            self._changing("assign")
            run.places.update({client: assignments[client] for client in fresh})

    def revoke_client(self, client: str) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            if client not in self._clients:
                raise JournalConflict(f"client {client} is not registered")
            self._changing("revoke_client")
            self._clients[client] = replace(self._clients[client], revoked=True)

    def clients(self) -> tuple[ClientRecord, ...]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            result = []
            for client, record in sorted(self._clients.items()):
                index, scaling = (
                    self._runs[-1].places.get(client, (None, None)) if self._runs else (None, None)
                )
                last, count = self._runs[-1].included.get(client, (0, 0)) if self._runs else (0, 0)
                result.append(
                    replace(
                        record, index=index, scaling=scaling, last_committed_round=last, rounds_included=count
                    )
                )
            return tuple(result)

    def bindings(self) -> Mapping[str, str]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return dict(self._bindings)

    def granted_workers(self) -> frozenset[str]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return frozenset(self._granted)

    def bind_clients(self, worker: str, clients: Sequence[str], now: float, *, granted: bool = False) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            fresh = rules.check_bind(worker, clients, self._bindings)
            self._changing("bind_clients")
            self._bindings.update(dict.fromkeys(fresh, worker))
            if granted:
                self._granted.add(worker)

    def move_client(self, client: str, worker: str, now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            self._changing("move_client")
            self._bindings[client] = worker

    def open_attempt(self, attempt: AttemptRecord) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            run = self._active()
            in_flight = [found for found in run.attempts.values() if found.outcome in rules.IN_FLIGHT]
            same = run.attempts.get((attempt.round, attempt.attempt))
            newest = run.versions[-1]
            if not rules.check_open(
                attempt, newest, same, in_flight[0] if in_flight else None, self._clients
            ):
                self._changing("open_attempt")
                run.attempts[attempt.round, attempt.attempt] = attempt

    def close_attempt(
        self, round_number: int, attempt: int, accepted: Sequence[str], secure_sum: bytes = b""
    ) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            run = self._active()
            names = rules.accepted_set(accepted)
            found = run.attempts.get((round_number, attempt))
            closed = rules.check_close(found, round_number, attempt, names)
            if not closed or secure_sum:
                self._changing("close_attempt")
            if secure_sum and found is not None and found.outcome in rules.IN_FLIGHT:
                run.secure_sums[round_number, attempt] = bytes(secure_sum)
            if not closed:
                run.attempts[round_number, attempt] = replace(
                    run.attempts[round_number, attempt], outcome="closed", accepted=names
                )

    def secure_sum(self, round_number: int, attempt: int) -> bytes:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return self._runs[-1].secure_sums.get((round_number, attempt), b"") if self._runs else b""

    def abandon_attempt(self, round_number: int, attempt: int, reason: str, now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            run = self._active()
            found = run.attempts.get((round_number, attempt))
            if not rules.check_abandon(found, round_number, attempt, reason):
                self._changing("abandon_attempt")
                run.attempts[round_number, attempt] = replace(
                    run.attempts[round_number, attempt], outcome="abandoned", reason=reason, closed_at=now
                )
                run.secure_sums.pop((round_number, attempt), None)

    def commit(self, version: VersionRecord, now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            run = self._active()
            same = next((known for known in run.versions if known.number == version.number), None)
            found = run.attempts.get((version.round, version.attempt))
            if rules.check_commit(version, run.versions[-1], same, found):
                return
            self._changing("commit")
            closed = run.attempts[version.round, version.attempt]
            run.versions.append(replace(version, committed_at=now, retained=True))
            run.chain.append(chain.link(run.chain[-1], version, closed.accepted))
            run.attempts[version.round, version.attempt] = replace(closed, outcome="committed", closed_at=now)
            run.secure_sums.pop((version.round, version.attempt), None)
            for client in closed.accepted:
                run.included[client] = (version.round, run.included.get(client, (0, 0))[1] + 1)

    def attempts(self, limit: int | None = None) -> tuple[AttemptRecord, ...]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            newest_first = list(reversed(self._runs[-1].attempts.values())) if self._runs else []
            return tuple(newest_first if limit is None else newest_first[:limit])

    def attempt_counts(self, limit: int) -> tuple[AttemptCounts, ...]:
        """See `coordinator.ports.journal.Journal`."""
        return tuple(
            AttemptCounts(
                round=each.round,
                attempt=each.attempt,
                opened_at=each.opened_at,
                outcome=each.outcome,
                reason=each.reason,
                invited=len(each.cohort),
                accepted=len(each.accepted),
                closed_at=each.closed_at,
            )
            for each in self.attempts(limit)
        )

    def keep_chronicle(self, round_number: int, attempt: int, chronicle: Json) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            key = (round_number, attempt)
            if not self._runs or key not in self._runs[-1].attempts:
                raise JournalConflict(f"round {round_number} has no attempt {attempt}")
            self._changing("keep_chronicle")
            kept = self._runs[-1].chronicles
            kept[key] = records.text(chronicle)
            for old in list(kept)[:-KEPT_CHRONICLES]:
                del kept[old]

    def chronicle(self, round_number: int, attempt: int) -> Json:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            kept = self._runs[-1].chronicles if self._runs else {}
            return json.loads(kept.get((round_number, attempt), "{}"))

    def versions(self) -> tuple[VersionRecord, ...]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return tuple(self._runs[-1].versions) if self._runs else ()

    def chain(self) -> tuple[str, ...]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return tuple(self._runs[-1].chain) if self._runs else ()

    def forget_version_blobs(self, numbers: Sequence[int]) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            if not self._runs:
                raise JournalConflict("there is no run yet")
            run = self._runs[-1]
            rules.check_forget(numbers, {version.number for version in run.versions})
            self._changing("forget_version_blobs")
            gone = set(numbers)
            run.versions = [
                replace(version, retained=False) if version.number in gone else version
                for version in run.versions
            ]

    def record_evaluation(self, version: int, values: Mapping[str, float], now: float) -> None:
        """See `coordinator.ports.journal.Journal`. A later measurement of a version replaces the earlier one."""
        del now  # kept by the durable store for the operator's eyes only
        with self._lock:
            if version not in {known.number for known in self.versions()}:
                raise JournalConflict(f"version {version} does not exist")
            self._changing("record_evaluation")
            self._runs[-1].evaluations[version] = dict(values)

    def evaluations(self) -> tuple[tuple[int, Mapping[str, float]], ...]:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return tuple(sorted(self._runs[-1].evaluations.items())) if self._runs else ()

    def flag(self, name: str) -> bool:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            return self._flags.get(name, False)

    def set_flag(self, name: str, value: bool) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._lock:
            self._changing("set_flag")
            self._flags[name] = value

    def close(self) -> None:
        """See `coordinator.ports.journal.Journal`."""
        self._closed = True
