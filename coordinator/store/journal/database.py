"""The state database: opening it, whole transactions, and its failures as sentences for the operator.

What its tables mean is the business of the stores that build on this.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordinator.errors import JournalConflict, StorageFailed
from coordinator.store.failures import storage_failed
from coordinator.store.journal.schema import prepare
from ssd.trust.private_files import make_database_private

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free space on it, then start the coordinator again; "
    "nothing committed is lost",
    sqlite3.SQLITE_READONLY: "it cannot be written: give the coordinator's user write access to the state directory, "
    "or remount it writable",
    sqlite3.SQLITE_BUSY: "another program holds it locked: close that program (a database shell or backup?) and "
    "start the coordinator again",
    sqlite3.SQLITE_LOCKED: "another program holds it locked: close that program and start the coordinator again",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore the state directory from a backup; do not start on it again",
    sqlite3.SQLITE_NOTADB: "it is not a database: restore the state directory from a backup, or choose another "
    "state_dir",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: give the coordinator's user read and write access to the state "
    "directory",
    sqlite3.SQLITE_IOERR: "the device reports an input/output error: check the disk",
}
_LOCK_SECONDS = 5.0


class Database:
    """One connection to `<state_dir>/state.sqlite3`. May be used from any thread, and beside other processes'.

    Raises:
        StorageFailed: the medium fails, or the file was written by a newer version of this software.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "state.sqlite3"
        self._lock = threading.RLock()
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_failed(error, state_dir, "creating the state directory") from error
        make_database_private(self.path)
        with self._failures("opening it"):
            self._db = sqlite3.connect(
                self.path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._federation_id = prepare(self._db, self.path, secrets.token_hex(16))
            except BaseException:
                self._db.close()
                raise

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise JournalConflict(f"{doing}: {error}") from error
        except sqlite3.Error as error:
            # Only errors that SQLite itself reports carry a code; the low byte is the primary one.
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(primary, f"{error}: put this right, then start the coordinator again")
            raise StorageFailed(f"{self.path}: {doing} failed: {advice}") from error

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable when the block has ended."""
        with self._lock, self._failures(doing):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        with self._lock, self._failures("reading it"):
            return self._db.execute(query, arguments).fetchall()

    def close(self) -> None:
        """Close the connection; what was returned from is on disk."""
        with self._lock:
            self._db.close()
