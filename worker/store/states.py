"""Small client states, kept in the database so that a commit of many clients is synced once and not once for each.

The file of a current state is what everybody reads. A small one is not synced: its content is in the transaction that
makes it current, and a file that a power cut spoiled is written anew when the store is opened. A large one is synced by
itself before the transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from worker.store.files import sync_file, write_file

SCHEMA = "CREATE TABLE IF NOT EXISTS states (name TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT;"
MAX_BYTES = 64 << 10
"""The largest state that is copied into the database."""


def secure(db: sqlite3.Connection, path: Path) -> bool:
    """Have a state survive power loss once the transaction does; True: its folder has to be synced, too.

    Raises:
        OSError: it cannot be read or synced.
    """
    if path.stat().st_size > MAX_BYTES:
        sync_file(path)
        return True
    db.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", (path.name, path.read_bytes()))
    return False


def let_go(db: sqlite3.Connection, names: Iterable[str]) -> None:
    """These files are no longer current; one that was not in the database is no error."""
    db.executemany("DELETE FROM states WHERE name = ?", [(name,) for name in names])


def let_go_of_others(db: sqlite3.Connection) -> None:
    """Whatever is no client's current state goes."""
    db.execute("DELETE FROM states WHERE name NOT IN (SELECT state FROM clients)")


def restore(db: sqlite3.Connection, folder: Path) -> int:
    """Write every file anew that is gone or differs; returns how many.

    Raises:
        OSError: one cannot be read or written.
    """
    restored = 0
    for name, content in db.execute("SELECT name, content FROM states"):
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write_file(path, memoryview(content))
            restored += 1
    return restored
