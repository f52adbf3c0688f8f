"""The store over SQLite: one file, write-ahead log, every commit on disk before a method returns.

Rules: one transaction per method; checks before changes, inside that transaction; records are JSON text in
one column, and only what is searched for or changes later has a column of its own. The registry belongs to
the federation, everything else to a run; the current run is the youngest.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.errors import JournalConflict
from coordinator.ports.records import (
    KEPT_CHRONICLES,
    AttemptCounts,
    AttemptRecord,
    ClientRecord,
    RunRecord,
    VersionRecord,
)
from coordinator.store.journal import chain, records, rules
from coordinator.store.journal.bindings import SqliteBindings
from ssd.scaling import ScalingVector

Json = Any


class SqliteJournal(SqliteBindings):
    """`coordinator.ports.journal.Journal` in `<state_dir>/state.sqlite3`. May be called from any thread.

    Raises:
        StorageFailed: the medium fails, or the file was written by a newer version of this software.
    """

    def _current(self) -> tuple[RunRecord | None, bool]:
        rows = self._rows("SELECT record, finished FROM runs ORDER BY position DESC LIMIT 1")
        return (records.to_run(rows[0][0]), bool(rows[0][1])) if rows else (None, False)

    def _run_id(self) -> str:
        """The current run's id, or "" (which no run has)."""
        rows = self._rows("SELECT run_id FROM runs ORDER BY position DESC LIMIT 1")
        return str(rows[0][0]) if rows else ""

    def _active_id(self) -> str:
        return rules.active_run(*self._current()).run_id

    def _versions(self, run_id: str, condition: str = "", *arguments: Any) -> list[VersionRecord]:
        rows = self._rows(
            # `condition` is a constant of this file, never input.
            f"SELECT {records.VERSION_COLUMNS} FROM versions WHERE run_id = ? {condition}",  # noqa: S608
            run_id,
            *arguments,
        )
        return [records.to_version(*row) for row in rows]

    def _newest(self, run_id: str) -> VersionRecord:
        return self._versions(run_id, "ORDER BY number DESC LIMIT 1")[0]

    def _attempts(self, run_id: str, condition: str, *arguments: Any) -> list[AttemptRecord]:
        rows = self._rows(
            # `condition` is a constant of this file, never input.
            f"SELECT {records.ATTEMPT_COLUMNS} FROM attempts WHERE run_id = ? {condition}",  # noqa: S608
            run_id,
            *arguments,
        )
        return [records.to_attempt(*row) for row in rows]

    def _attempt(self, run_id: str, round_number: int, attempt: int) -> AttemptRecord | None:
        found = self._attempts(run_id, "AND round = ? AND attempt = ?", round_number, attempt)
        return found[0] if found else None

    def _registered(self) -> set[str]:
        return {str(client) for (client,) in self._rows("SELECT client FROM clients")}

    def federation_id(self) -> str:
        """See `coordinator.ports.journal.Journal`."""
        return self._federation_id

    def current_run(self) -> RunRecord | None:
        """See `coordinator.ports.journal.Journal`."""
        return self._current()[0]

    def create_run(self, run: RunRecord, initial: VersionRecord) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("creating a run") as db:
            current, finished = self._current()
            known = {str(run_id) for (run_id,) in self._rows("SELECT run_id FROM runs")}
            first = self._versions(current.run_id, "AND number = 0")[0] if current else None
            if rules.check_create_run(run, initial, current, finished, first, known):
                return
            db.execute("INSERT INTO runs (run_id, record) VALUES (?, ?)", (run.run_id, records.run_text(run)))
            self._insert_version(db, run.run_id, initial, initial.committed_at, chain.origin(run, initial))

    @staticmethod
    def _insert_version(
        db: sqlite3.Connection, run_id: str, version: VersionRecord, at: float, value: str
    ) -> None:
        db.execute(
            "INSERT INTO versions (run_id, number, record, committed_at) VALUES (?, ?, ?, ?)",
            (run_id, version.number, records.version_text(version), at),
        )
        db.execute(
            "INSERT INTO chain (run_id, number, value) VALUES (?, ?, ?)", (run_id, version.number, value)
        )

    def finish_run(self) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("finishing the run") as db:
            run, finished = self._current()
            if finished:
                return
            run_id = rules.active_run(run, finished).run_id
            if self._attempts(run_id, "AND outcome IN ('open', 'closed')"):
                raise JournalConflict("an attempt is under way")
            db.execute("UPDATE runs SET finished = 1 WHERE run_id = ?", (run_id,))

    def reopen_run(self) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("extending the run") as db:
            run, finished = self._current()
            if run is None:
                raise JournalConflict("there is no run")
            if finished:
                db.execute("UPDATE runs SET finished = 0 WHERE run_id = ?", (run.run_id,))

    def run_finished(self) -> bool:
        """See `coordinator.ports.journal.Journal`."""
        return self._current()[1]

    def register_clients(self, clients: Sequence[str], now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("registering clients") as db:
            db.executemany(
                "INSERT INTO clients (client, registered_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(client, now) for client in clients],
            )

    def assign(self, assignments: Mapping[str, tuple[int, ScalingVector | None]]) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("assigning scaling vectors") as db:
            run_id = self._active_id()
            present = {
                str(client): (int(place), records.to_scaling(scaling))
                for client, place, scaling in self._rows(
                    "SELECT client, place, scaling FROM members WHERE run_id = ? AND place IS NOT NULL",
                    run_id,
                )
            }
            fresh = rules.check_assign(assignments, self._registered(), present)
            db.executemany(
                "INSERT INTO members (run_id, client, place, scaling) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (run_id, client) DO UPDATE SET place = excluded.place, scaling = excluded.scaling",
                [
                    (run_id, client, assignments[client][0], records.scaling_text(assignments[client][1]))
                    for client in fresh
                ],
            )

    def revoke_client(self, client: str) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("revoking a client") as db:
            if db.execute("UPDATE clients SET revoked = 1 WHERE client = ?", (client,)).rowcount != 1:
                raise JournalConflict(f"client {client} is not registered")

    def clients(self) -> tuple[ClientRecord, ...]:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows(
            "SELECT c.client, c.registered_at, c.revoked, m.place, m.scaling, "
            "coalesce(m.last_committed_round, 0), coalesce(m.rounds_included, 0) "
            "FROM clients c LEFT JOIN members m ON m.client = c.client AND m.run_id = "
            "(SELECT run_id FROM runs ORDER BY position DESC LIMIT 1) ORDER BY c.client"
        )
        return tuple(
            ClientRecord(
                client=client,
                registered_at=registered_at,
                revoked=bool(revoked),
                index=place,
                scaling=records.to_scaling(scaling),
                last_committed_round=last,
                rounds_included=count,
            )
            for client, registered_at, revoked, place, scaling, last, count in rows
        )

    def open_attempt(self, attempt: AttemptRecord) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("opening an attempt") as db:
            run_id = self._active_id()
            in_flight = self._attempts(run_id, "AND outcome IN ('open', 'closed')")
            same = self._attempt(run_id, attempt.round, attempt.attempt)
            busy = in_flight[0] if in_flight else None
            if rules.check_open(attempt, self._newest(run_id), same, busy, self._registered()):
                return
            db.execute(
                "INSERT INTO attempts (run_id, round, attempt, record) VALUES (?, ?, ?, ?)",
                (run_id, attempt.round, attempt.attempt, records.attempt_text(attempt)),
            )

    def close_attempt(
        self, round_number: int, attempt: int, accepted: Sequence[str], secure_sum: bytes = b""
    ) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("journaling the accepted set") as db:
            run_id = self._active_id()
            names = rules.accepted_set(accepted)
            found = self._attempt(run_id, round_number, attempt)
            closed = rules.check_close(found, round_number, attempt, names)
            if secure_sum and found is not None and found.outcome in rules.IN_FLIGHT:
                db.execute(
                    "INSERT OR REPLACE INTO secure_sums (run_id, round, attempt, state) VALUES (?, ?, ?, ?)",
                    (run_id, round_number, attempt, secure_sum),
                )
            if closed:
                return
            db.execute(
                "UPDATE attempts SET outcome = 'closed', accepted = ? "
                "WHERE run_id = ? AND round = ? AND attempt = ?",
                (records.names_text(names), run_id, round_number, attempt),
            )

    def secure_sum(self, round_number: int, attempt: int) -> bytes:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows(
            "SELECT state FROM secure_sums WHERE run_id = ? AND round = ? AND attempt = ?",
            self._run_id(),
            round_number,
            attempt,
        )
        return bytes(rows[0][0]) if rows else b""

    @staticmethod
    def _drop_secure_sum(db: sqlite3.Connection, run_id: str, round_number: int, attempt: int) -> None:
        db.execute(
            "DELETE FROM secure_sums WHERE run_id = ? AND round = ? AND attempt = ?",
            (run_id, round_number, attempt),
        )

    def abandon_attempt(self, round_number: int, attempt: int, reason: str, now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("abandoning an attempt") as db:
            run_id = self._active_id()
            found = self._attempt(run_id, round_number, attempt)
            if rules.check_abandon(found, round_number, attempt, reason):
                return
            db.execute(
                "UPDATE attempts SET outcome = 'abandoned', reason = ?, closed_at = ? "
                "WHERE run_id = ? AND round = ? AND attempt = ?",
                (reason, now, run_id, round_number, attempt),
            )
            self._drop_secure_sum(db, run_id, round_number, attempt)

    def commit(self, version: VersionRecord, now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("committing a version") as db:
            run_id = self._active_id()
            same = self._versions(run_id, "AND number = ?", version.number)
            found = self._attempt(run_id, version.round, version.attempt)
            if rules.check_commit(version, self._newest(run_id), same[0] if same else None, found):
                return
            accepted = found.accepted if found else ()
            value = chain.link(self.chain()[-1], version, accepted)
            self._insert_version(db, run_id, version, now, value)
            db.execute(
                "UPDATE attempts SET outcome = 'committed', closed_at = ? "
                "WHERE run_id = ? AND round = ? AND attempt = ?",
                (now, run_id, version.round, version.attempt),
            )
            self._drop_secure_sum(db, run_id, version.round, version.attempt)
            db.executemany(
                "INSERT INTO members (run_id, client, last_committed_round, rounds_included) VALUES (?, ?, ?, 1) "
                "ON CONFLICT (run_id, client) DO UPDATE SET "
                "last_committed_round = excluded.last_committed_round, rounds_included = rounds_included + 1",
                [(run_id, client, version.round) for client in accepted],
            )

    def attempts(self, limit: int | None = None) -> tuple[AttemptRecord, ...]:
        """See `coordinator.ports.journal.Journal`."""
        return tuple(
            self._attempts(self._run_id(), "ORDER BY position DESC LIMIT ?", -1 if limit is None else limit)
        )

    def attempt_counts(self, limit: int) -> tuple[AttemptCounts, ...]:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows(
            "SELECT round, attempt, json_extract(record, '$.opened_at'), outcome, reason,"
            " json_array_length(record, '$.cohort'), json_array_length(accepted), closed_at"
            " FROM attempts WHERE run_id = ? ORDER BY position DESC LIMIT ?",
            self._run_id(),
            limit,
        )
        return tuple(
            AttemptCounts(
                round=round_number,
                attempt=attempt,
                opened_at=opened_at,
                outcome=outcome,
                reason=reason,
                invited=invited,
                accepted=accepted,
                closed_at=closed_at,
            )
            for round_number, attempt, opened_at, outcome, reason, invited, accepted, closed_at in rows
        )

    def keep_client_history(self, round_number: int, attempt: int, client_history: Json) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("keeping an attempt's client history") as db:
            run_id = self._run_id()
            if self._attempt(run_id, round_number, attempt) is None:
                raise JournalConflict(f"round {round_number} has no attempt {attempt}")
            db.execute(
                "INSERT INTO chronicles (run_id, round, attempt, record) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (run_id, round, attempt) DO UPDATE SET record = excluded.record",
                (run_id, round_number, attempt, records.text(client_history)),
            )
            db.execute(
                "DELETE FROM chronicles WHERE position <= (SELECT max(position) FROM chronicles) - ?",
                (KEPT_CHRONICLES,),
            )

    def client_history(self, round_number: int, attempt: int) -> Json:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows(
            "SELECT record FROM chronicles WHERE run_id = ? AND round = ? AND attempt = ?",
            self._run_id(),
            round_number,
            attempt,
        )
        return json.loads(rows[0][0]) if rows else {}

    def versions(self) -> tuple[VersionRecord, ...]:
        """See `coordinator.ports.journal.Journal`."""
        return tuple(self._versions(self._run_id(), "ORDER BY number"))

    def chain(self) -> tuple[str, ...]:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows("SELECT value FROM chain WHERE run_id = ? ORDER BY number", self._run_id())
        return tuple(str(value) for (value,) in rows)

    def forget_version_blobs(self, numbers: Sequence[int]) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("forgetting old versions") as db:
            run_id = self._run_id()
            known = {
                int(number)
                for (number,) in self._rows("SELECT number FROM versions WHERE run_id = ?", run_id)
            }
            if not known:
                raise JournalConflict("there is no run yet")
            rules.check_forget(numbers, known)
            db.executemany(
                "UPDATE versions SET retained = 0 WHERE run_id = ? AND number = ?",
                [(run_id, number) for number in numbers],
            )

    def record_evaluation(self, version: int, values: Mapping[str, float], now: float) -> None:
        """See `coordinator.ports.journal.Journal`. A later measurement of a version replaces the earlier one."""
        with self._transaction("recording an evaluation") as db:
            run_id = self._run_id()
            if not self._versions(run_id, "AND number = ?", version):
                raise JournalConflict(f"version {version} does not exist")
            db.execute(
                "INSERT OR REPLACE INTO evaluations (run_id, version, record, evaluated_at) VALUES (?, ?, ?, ?)",
                (run_id, version, records.values_text(values), now),
            )

    def evaluations(self) -> tuple[tuple[int, Mapping[str, float]], ...]:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows(
            "SELECT version, record FROM evaluations WHERE run_id = ? ORDER BY version", self._run_id()
        )
        return tuple((int(version), records.to_values(record)) for version, record in rows)

    def flag(self, name: str) -> bool:
        """See `coordinator.ports.journal.Journal`."""
        rows = self._rows("SELECT value FROM flags WHERE name = ?", name)
        return bool(rows and rows[0][0])

    def set_flag(self, name: str, value: bool) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("setting a flag") as db:
            db.execute("INSERT OR REPLACE INTO flags (name, value) VALUES (?, ?)", (name, int(value)))
