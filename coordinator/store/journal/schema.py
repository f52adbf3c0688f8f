"""The tables of the state database, and how a file is opened, created or refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from coordinator.errors import StorageFailed

_JOURNAL = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE federation (id TEXT NOT NULL);
CREATE TABLE runs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE versions (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    number INTEGER NOT NULL,
    record TEXT NOT NULL,
    committed_at REAL NOT NULL,
    retained INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (run_id, number)
);
CREATE TABLE attempts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'open' CHECK (outcome IN ('open', 'closed', 'committed', 'abandoned')),
    reason TEXT NOT NULL DEFAULT '',
    accepted TEXT NOT NULL DEFAULT '[]',
    closed_at REAL,
    UNIQUE (run_id, round, attempt)
);
CREATE UNIQUE INDEX one_attempt_in_flight ON attempts (run_id) WHERE outcome IN ('open', 'closed');
CREATE TABLE clients (
    client TEXT PRIMARY KEY,
    registered_at REAL NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE members (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    client TEXT NOT NULL REFERENCES clients (client),
    place INTEGER,
    scaling TEXT,
    last_committed_round INTEGER NOT NULL DEFAULT 0,
    rounds_included INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, client),
    UNIQUE (run_id, place)
) WITHOUT ROWID;
CREATE TABLE evaluations (
    run_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL,
    evaluated_at REAL NOT NULL,
    PRIMARY KEY (run_id, version),
    FOREIGN KEY (run_id, version) REFERENCES versions (run_id, number)
) WITHOUT ROWID;
CREATE TABLE flags (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_TRUST = """
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    key_digest TEXT NOT NULL,
    certificate TEXT NOT NULL,
    issued_at REAL NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE join_tokens (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    clients TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    withdrawn_at REAL,
    used_at REAL,
    serial TEXT REFERENCES certificates (serial),
    CHECK ((used_at IS NULL) = (serial IS NULL)),
    CHECK (used_at IS NULL OR withdrawn_at IS NULL)
);
CREATE TABLE revocations (
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    revoked_at REAL NOT NULL,
    PRIMARY KEY (role, name)
) WITHOUT ROWID;
"""
_BINDINGS = """
CREATE TABLE bindings (client TEXT PRIMARY KEY, worker TEXT NOT NULL, bound_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE granted_workers (worker TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_CHAIN = """
CREATE TABLE chain (
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_id, number),
    FOREIGN KEY (run_id, number) REFERENCES versions (run_id, number)
) WITHOUT ROWID;
"""
_SECURE_SUMS = """
CREATE TABLE secure_sums (
    run_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (run_id, round, attempt),
    FOREIGN KEY (run_id, round, attempt) REFERENCES attempts (run_id, round, attempt)
) WITHOUT ROWID;
"""
_CHRONICLES = """
CREATE TABLE chronicles (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (run_id, round, attempt),
    FOREIGN KEY (run_id, round, attempt) REFERENCES attempts (run_id, round, attempt)
);
"""
_STEPS = (_JOURNAL, _TRUST, _BINDINGS, _CHAIN, _SECURE_SUMS, _CHRONICLES)
"""What brings a database from each version to the next; an empty file takes them all."""

SCHEMA_VERSION = len(_STEPS)


def prepare(db: sqlite3.Connection, path: Path, new_id: str) -> str:
    """Sets the connection up and creates the tables that a file does not have yet, in one transaction.

    Returns:
        The federation's id: `new_id` if the file was empty.

    Raises:
        StorageFailed: the file has a newer schema, or is somebody else's.
    """
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    # What is deleted is overwritten: the shares that opened a masked sum are nobody's business afterwards.
    db.execute("PRAGMA secure_delete = ON")
    db.execute("BEGIN IMMEDIATE")
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = _version(db, tables, path) if tables else 0
        for step in _STEPS[found:]:
            for statement in step.split(";"):
                db.execute(statement)
        if not tables:
            db.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
            db.execute("INSERT INTO federation VALUES (?)", (new_id,))
        elif found < SCHEMA_VERSION:
            db.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION,))
        (federation_id,) = db.execute("SELECT id FROM federation").fetchone()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return str(federation_id)


def _version(db: sqlite3.Connection, tables: set[str], path: Path) -> int:
    if "schema_version" not in tables:
        raise StorageFailed(f"{path} is not a coordinator's state database: choose another state_dir")
    (found,) = db.execute("SELECT version FROM schema_version").fetchone()
    if found > SCHEMA_VERSION:
        raise StorageFailed(
            f"{path} has schema version {found}, this coordinator knows up to {SCHEMA_VERSION}: "
            "run the newer version that wrote it, or choose another state_dir"
        )
    return int(found)
