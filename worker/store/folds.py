"""Updates in the store: their rows, and the folds that several of them may be in.

A fold is one body for several clients' updates. Its file stays as long as a row of one of its members does; members are
in one fold at a time. (The members' table is one of its own, so that an earlier release finds updates without bodies,
which it drops, instead of columns that it does not know.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssd.digest import CHUNK_BYTES
from ssd_wire.messages import UpdateKey
from worker.core.finished import Finished
from worker.store.files import chunk_list, file_digest

SCHEMA = """
CREATE TABLE IF NOT EXISTS folds (
    name TEXT PRIMARY KEY, run TEXT NOT NULL, clients INTEGER NOT NULL, size INTEGER NOT NULL, chunks BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS members (
    run TEXT NOT NULL, client TEXT NOT NULL, round INTEGER NOT NULL, base TEXT NOT NULL, task TEXT NOT NULL,
    fold TEXT NOT NULL,
    PRIMARY KEY (run, client, round, base, task)
) STRICT;
CREATE INDEX IF NOT EXISTS members_of ON members (fold);
"""
WHERE = "run = ? AND client = ? AND round = ? AND base = ? AND task = ?"
Row = tuple[str, str, int, str, str]


def row_of(run: str, key: UpdateKey) -> Row:
    """What a row is found by."""
    return (run, key.client, key.round, key.base_digest, key.task_digest)


def held(db: sqlite3.Connection, run_id: str) -> tuple[Finished, ...]:
    """Every update of a run whose fate is open."""
    rows = db.execute(
        "SELECT u.client, u.round, u.base, u.task, u.weight, u.seconds, coalesce(f.size, u.size),"
        " coalesce(f.chunks, u.chunks), u.state_digest, coalesce(m.fold, ''), coalesce(f.clients, 1)"
        " FROM updates u LEFT JOIN members m USING (run, client, round, base, task)"
        " LEFT JOIN folds f ON f.name = m.fold WHERE u.run = ? ORDER BY u.client, u.round",
        (run_id,),
    )
    return tuple(
        Finished(
            key=UpdateKey(client=client, round=number, base_digest=base, task_digest=task),
            weight=weight,
            seconds=seconds,
            body_size=size,
            chunk_digests=chunks,
            state_digest=digest,
            fold=fold,
            fold_clients=clients,
        )
        for client, number, base, task, weight, seconds, size, chunks, digest, fold, clients in rows
    )


def insert(db: sqlite3.Connection, run: str, finished: Sequence[Finished]) -> None:
    """Write updates; those in a fold are in no other from now on."""
    db.executemany(
        "INSERT OR REPLACE INTO updates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *row_of(run, each.key),
                each.weight,
                each.seconds,
                0 if each.fold else each.body_size,
                b"" if each.fold else each.chunk_digests,
                each.state_digest,
            )
            for each in finished
        ],
    )
    in_folds = [each for each in finished if each.fold]
    for each in {each.fold: each for each in in_folds}.values():
        row = (each.fold, run, each.fold_clients, each.body_size, each.chunk_digests)
        db.execute("INSERT OR REPLACE INTO folds VALUES (?, ?, ?, ?, ?)", row)
    db.executemany(
        "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)",
        [(*row_of(run, each.key), each.fold) for each in in_folds],
    )


def delete(db: sqlite3.Connection, run: str, keys: Iterable[UpdateKey]) -> None:
    """Remove updates from their tables."""
    rows = [row_of(run, key) for key in keys]
    db.executemany(f"DELETE FROM updates WHERE {WHERE}", rows)  # noqa: S608  # a constant of ours
    db.executemany(f"DELETE FROM members WHERE {WHERE}", rows)  # noqa: S608  # a constant of ours


def pending_state(db: sqlite3.Connection, run: str, key: UpdateKey) -> str | None:
    """Digest of an update's pending state, empty if it has none; None: there is nothing to promote."""
    row = db.execute(f"SELECT state_digest FROM updates WHERE {WHERE}", row_of(run, key)).fetchone()  # noqa: S608  # a constant of ours
    known = db.execute("SELECT round FROM clients WHERE run = ? AND client = ?", (run, key.client)).fetchone()
    if row is None or (known is not None and known[0] >= key.round):
        return None
    return str(row[0])


def names(db: sqlite3.Connection) -> set[str]:
    """Of all folds."""
    return {str(row[0]) for row in db.execute("SELECT name FROM folds")}


def drop_empty(db: sqlite3.Connection) -> list[str]:
    """Remove folds that nobody is in any more; returns their names."""
    empty = [
        str(row[0])
        for row in db.execute("SELECT name FROM folds WHERE name NOT IN (SELECT fold FROM members)")
    ]
    db.executemany("DELETE FROM folds WHERE name = ?", [(name,) for name in empty])
    return empty


def is_whole(body: Path, finished: Finished, *, thorough: bool) -> bool:
    """Whether an update's body, or its fold's, is what was recorded; not `thorough`: by its length alone."""
    try:
        if body.stat().st_size != finished.body_size:
            return False
        return not thorough or chunk_list(body, CHUNK_BYTES) == finished.chunk_digests
    except OSError:
        return False


def has_state(state: Path, finished: Finished, *, thorough: bool) -> bool:
    """Whether an update's pending state is there, and `thorough`: what was recorded."""
    try:
        if not finished.state_digest or not thorough:
            return not finished.state_digest or state.is_file()
        return file_digest(state) == finished.state_digest
    except OSError:
        return False
