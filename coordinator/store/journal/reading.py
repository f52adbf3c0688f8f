"""Looking into a state database without changing it: beside a running coordinator, or when there is none.

Nothing is created, upgraded or locked, so whoever may read the files may look.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coordinator.errors import StorageFailed
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.store.journal import records
from coordinator.store.journal.schema import SCHEMA_VERSION

Json = Any
_LOCK_SECONDS = 2.0
_CURRENT = "SELECT run_id FROM runs ORDER BY position DESC LIMIT 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRecords:
    """What the journal has of one round."""

    newest_round: int
    """The highest of which an attempt was opened; 0: none."""
    attempts: tuple[tuple[AttemptRecord, Mapping[str, Json]], ...] = ()
    """Each with its clients' history, oldest first."""
    bindings: Mapping[str, str] = field(default_factory=dict)
    """Client -> the worker it belongs to now."""
    model_digest: str = ""
    """Of the version the round committed; empty: it has not."""


def read_run(state_dir: Path) -> RunRecord | None:
    """The current run; None if there is no run, or no database yet.

    Raises:
        StorageFailed: the file cannot be read, or is no state database that this version knows.
    """
    if not (state_dir / "state.sqlite3").exists():
        return None
    with _open(state_dir) as db:
        return _current(db)


def _current(db: sqlite3.Connection) -> RunRecord | None:
    found = db.execute("SELECT record FROM runs ORDER BY position DESC LIMIT 1").fetchone()
    return None if found is None else records.to_run(found[0])


def _attempts(db: sqlite3.Connection, which: str, *arguments: Json) -> list[AttemptRecord]:
    # `which` is a constant of this file, never input, as in `_versions`.
    rows = db.execute(f"SELECT {records.ATTEMPT_COLUMNS} FROM attempts {which}", arguments)  # noqa: S608
    return [records.to_attempt(*row) for row in rows]


def _versions(db: sqlite3.Connection, which: str, *arguments: Json) -> list[VersionRecord]:
    rows = db.execute(f"SELECT {records.VERSION_COLUMNS} FROM versions {which}", arguments)  # noqa: S608
    return [records.to_version(*row) for row in rows]


@contextmanager
def _open(state_dir: Path) -> Iterator[sqlite3.Connection]:
    path = state_dir / "state.sqlite3"
    # Without a log beside it nobody has the file open; SQLite would make one to read it, unless told that none is needed.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=_LOCK_SECONDS)
        ) as db:
            (version,) = db.execute("SELECT version FROM schema_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StorageFailed(
                    f"{path} has schema version {version}, this program knows up to {SCHEMA_VERSION}: use the newer"
                    " version that wrote it"
                )
            yield db
    except (sqlite3.Error, TypeError) as error:
        raise StorageFailed(
            f"{path} cannot be read as a coordinator's state database ({error}): is it the right state_dir, and may this"
            " user read it?"
        ) from error


def read_model_size(state_dir: Path) -> int:
    """Bytes of the newest whole model; 0 if there is none.

    Raises:
        StorageFailed: as `read_run`.
    """
    if not (state_dir / "state.sqlite3").exists():
        return 0
    with _open(state_dir) as db:
        found = _versions(db, f"WHERE run_id = ({_CURRENT}) ORDER BY number DESC LIMIT 1")
    return found[0].full.size if found else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What the journal has of the current run."""

    run: RunRecord
    finished: bool
    """All the rounds that were asked for are committed."""
    attempts: tuple[AttemptRecord, ...]
    """Oldest first."""
    versions: tuple[VersionRecord, ...]
    """Oldest first."""
    evaluations: tuple[tuple[int, Mapping[str, float]], ...]
    """Version and values, by version."""


def read_history(state_dir: Path) -> History | None:
    """The current run's rounds and what was measured; None if there is no run.

    Raises:
        StorageFailed: as `read_run`.
    """
    run = read_run(state_dir)
    if run is None:
        return None
    with _open(state_dir) as db:
        ((finished,),) = db.execute("SELECT finished FROM runs WHERE run_id = ?", (run.run_id,)).fetchall()
        attempts = _attempts(db, "WHERE run_id = ? ORDER BY round, attempt", run.run_id)
        versions = _versions(db, "WHERE run_id = ? ORDER BY number", run.run_id)
        measured = db.execute(
            "SELECT version, record FROM evaluations WHERE run_id = ? ORDER BY version", (run.run_id,)
        ).fetchall()
    return History(
        run=run,
        finished=bool(finished),
        attempts=tuple(attempts),
        versions=tuple(versions),
        evaluations=tuple((int(version), records.to_values(record)) for version, record in measured),
    )


def read_round(state_dir: Path, number: int) -> RoundRecords | None:
    """Everything about one round of the current run; None if there is no run.

    Raises:
        StorageFailed: as `read_run`.
    """
    if read_run(state_dir) is None:
        return None
    with _open(state_dir) as db:
        ((run_id,),) = db.execute(_CURRENT).fetchall()
        ((newest,),) = db.execute(
            "SELECT coalesce(max(round), 0) FROM attempts WHERE run_id = ?", (run_id,)
        ).fetchall()
        attempts = _attempts(db, "WHERE run_id = ? AND round = ? ORDER BY attempt", run_id, number)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        kept: dict[int, Json] = {}
        if "chronicles" in tables:  # a database of an older version has none
            found = db.execute(
                "SELECT attempt, record FROM chronicles WHERE run_id = ? AND round = ?", (run_id, number)
            )
            kept = {attempt: json.loads(record) for attempt, record in found}
        bindings = {}
        if "bindings" in tables:
            bindings = dict(db.execute("SELECT client, worker FROM bindings").fetchall())
        versions = _versions(db, "WHERE run_id = ? AND number = ?", run_id, number)
    return RoundRecords(
        newest_round=int(newest),
        attempts=tuple((each, kept.get(each.attempt, {})) for each in attempts),
        bindings=bindings,
        model_digest=versions[0].model_digest if versions else "",
    )
