"""The worker's store: one SQLite file for what is true, plain files for what is large.

    store.sqlite3   runs, clients' last committed rounds, finished updates, cached versions
    updates/        bodies of finished updates
    states/         client states (safetensors), pending and current
    versions/       raw float32 vectors by model digest
    blobs/          declarations and artefacts by blob digest
    partial/        blobs on their way in
    spare/          files to be overwritten, see `worker.store.files.SpareFiles`
    masked/         masked uploads, of the process that made them only: its keys are in its memory

Rules it keeps:

- A row is written after its file, and removed before it: a file without a row is rubbish, swept at the next start.
- An update and its pending state are one row. `synchronous=NORMAL` makes it survive the death of the process; after
  a power cut it may be gone or its file may be, and the client trains again with the same result.
- What a commit made true (a state becoming current) is written with `synchronous=FULL`: a small state's content in the
  same transaction (`worker.store.states`), a large one's file synced before.
- A file lock keeps a second worker out.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssd.daemon.logs import event as log_event
from ssd.trust.private_files import make_database_private
from ssd_wire.messages import UpdateKey
from worker.core.events import StoredRun
from worker.core.finished import Finished
from worker.errors import StorageFailed
from worker.store import folds, secure_memory, states
from worker.store.files import (
    DirectoryLock,
    SpareFiles,
    boot_id,
    file_digest,
    remove,
    storage_faults,
    sync_directory,
    sync_file,
)

_log = logging.getLogger(__name__)
FORMAT = "1"
FOLDERS = ("updates", "states", "versions", "blobs", "partial", "spare", "masked")
MAX_SPARE_BYTES = 256 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS clients (
    run TEXT NOT NULL, client TEXT NOT NULL, round INTEGER NOT NULL, state TEXT NOT NULL, state_digest TEXT NOT NULL,
    PRIMARY KEY (run, client)
) STRICT;
CREATE TABLE IF NOT EXISTS updates (
    run TEXT NOT NULL, client TEXT NOT NULL, round INTEGER NOT NULL, base TEXT NOT NULL, task TEXT NOT NULL,
    weight INTEGER NOT NULL, seconds REAL NOT NULL, size INTEGER NOT NULL, chunks BLOB NOT NULL,
    state_digest TEXT NOT NULL,
    PRIMARY KEY (run, client, round, base, task)
) STRICT;
CREATE TABLE IF NOT EXISTS newest (run TEXT PRIMARY KEY, number INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS versions (
    run TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (run, number)
) STRICT;
"""


class SqliteStore:
    """`worker.ports.Store` in a directory.

    Raises:
        StateDirectoryLocked: another worker has it.
        StorageFailed: it cannot be written, is full, or was made by another version of this program.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mutex = threading.Lock()
        self._lock = DirectoryLock(directory)
        self._spares = SpareFiles(directory / "spare", MAX_SPARE_BYTES)
        try:
            with storage_faults(directory):
                for folder in FOLDERS:
                    (directory / folder).mkdir(exist_ok=True)
            with self._faults():
                self._db = _connect(directory / "store.sqlite3")
            self._run = ""
            self.secure = secure_memory.SecureMemory(self._read, self._write)
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> None:
        with self._write(durable=True) as db:
            made_by = _fact(db, "format") or FORMAT
            if made_by != FORMAT:
                raise StorageFailed(
                    f"{self._directory} was written in format {made_by}, this program knows {FORMAT}; "
                    "use the program that wrote it, or a new state directory"
                )
            _set_fact(db, "format", FORMAT)
            if not _fact(db, "instance"):
                _set_fact(db, "instance", secrets.token_hex(16))
            self._run = _fact(db, "run")
            rebooted = _fact(db, "boot") != boot_id()
            _set_fact(db, "boot", boot_id())
        with storage_faults(self._directory):
            for path in (self._directory / "masked").iterdir():
                remove(path)
        with self._read() as db, storage_faults(self._directory):
            restored = states.restore(db, self._directory / "states")
        if restored:
            log_event(_log, logging.INFO, "states_restored", count=restored)
        self._drop_damaged(thorough=rebooted)
        self._sweep()

    # ------------------------------------------------------------------------------------------------ records

    def instance_id(self) -> str:
        """32 hex digits made when the state directory was made."""
        with self._read() as db:
            return _fact(db, "instance")

    def current_run(self) -> str:
        """The run last entered; empty at first."""
        return self._run

    def load_run(self, run_id: str) -> StoredRun:
        """Everything the store knows of a run."""
        with self._read() as db:
            rounds = dict(db.execute("SELECT client, round FROM clients WHERE run = ?", (run_id,)).fetchall())
            versions = dict(
                db.execute("SELECT number, digest FROM versions WHERE run = ?", (run_id,)).fetchall()
            )
            newest = db.execute("SELECT number, digest FROM newest WHERE run = ?", (run_id,)).fetchone()
            return StoredRun(
                run_id=run_id,
                rounds=rounds,
                held=folds.held(db, run_id),
                versions=versions,
                newest=newest or (0, ""),
                level=_fact(db, f"level {run_id}") or "off",
                summed=secure_memory.summed(db, run_id),
            )

    def remember_version(self, number: int, model_digest: str) -> None:
        """The newest version of the current run the coordinator named."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO newest VALUES (?, ?, ?)", (self._run, number, model_digest))

    def remember_level(self, level: str) -> None:
        """The current run's level of secure aggregation."""
        with self._write(durable=True) as db:
            _set_fact(db, f"level {self._run}", level)

    def enter_run(self, run_id: str) -> None:
        """Make a run current; versions of other runs are removed."""
        with self._write(durable=True) as db:
            _set_fact(db, "run", run_id)
            db.execute("DELETE FROM versions WHERE run <> ?", (run_id,))
        self._run = run_id
        self.clear_partial()
        with storage_faults(self._directory):
            for path in (self._directory / "blobs").iterdir():
                remove(path)
        self._sweep()

    def keep(self, finished: Finished) -> None:
        """Record a finished update with its pending state."""
        self.keep_fold((finished,))

    def keep_fold(self, finished: Sequence[Finished]) -> None:
        """Record finished updates that are in one fold, with their pending states."""
        with self._write() as db:
            folds.insert(db, self._run, finished)
            empty = folds.drop_empty(db)
        self._remove_folds(empty)

    def drop(self, keys: Iterable[UpdateKey]) -> None:
        """Remove updates with their pending states."""
        keys = tuple(keys)
        with self._write() as db:
            folds.delete(db, self._run, keys)
            empty = folds.drop_empty(db)
        with storage_faults(self._directory):
            for key in keys:
                self._spares.give("body", self.body_path(key))
                remove(self.pending_state_path(key))
        self._remove_folds(empty)

    def forget(self, finished: Iterable[Finished]) -> None:
        """Remove the files of updates that were never kept, or no longer are."""
        finished = tuple(finished)
        self.drop(each.key for each in finished)
        with self._read() as db:
            known = folds.names(db)
        self._remove_folds({each.fold for each in finished if each.fold} - known)

    def _remove_folds(self, names: Iterable[str]) -> None:
        with storage_faults(self._directory):
            for name in names:
                remove(self.fold_path(name))

    def promote(self, keys: Iterable[UpdateKey]) -> None:
        """Make pending states current, for good."""
        replaced: list[str] = []
        done: list[UpdateKey] = []
        synced = False
        with self._write(durable=True) as db:
            for key in keys:
                digest = folds.pending_state(db, self._run, key)
                if digest is None:
                    continue
                name = ""
                if digest:
                    name = self.pending_state_path(key).name
                    with storage_faults(self._directory):
                        synced |= states.secure(db, self.pending_state_path(key))
                replaced.append(_set_client(db, self._run, key.client, key.round, name, digest))
                done.append(key)
            folds.delete(db, self._run, done)
            empty = folds.drop_empty(db)
            states.let_go(db, replaced)
            if synced:
                with storage_faults(self._directory):
                    sync_directory(self._directory / "states")
        with storage_faults(self._directory):
            for name in filter(None, replaced):
                remove(self._directory / "states" / name)
            for key in done:
                self._spares.give("body", self.body_path(key))
        self._remove_folds(empty)

    def reinitialise(self, rounds: Mapping[str, int]) -> None:
        """Forget clients' states and take over their rounds."""
        with self._write(durable=True) as db:
            files = [_set_client(db, self._run, client, number, "", "") for client, number in rounds.items()]
            states.let_go(db, files)
        with storage_faults(self._directory):
            for name in filter(None, files):
                remove(self._directory / "states" / name)

    def import_client(self, run_id: str, client: str, round_number: int, state: Path | None) -> None:
        """Take over a client's state from another host; `state` is moved into the store.

        The caller has checked that this store has nothing newer.
        """
        name, digest = "", ""
        with storage_faults(self._directory):
            if state is not None:
                digest = file_digest(state)
                name = f"imported-{digest[:40]}.safetensors"
                state.replace(self._directory / "states" / name)
                sync_file(self._directory / "states" / name)
            sync_directory(self._directory / "states")
        with self._write(durable=True) as db:
            before = _set_client(db, run_id, client, round_number, name, digest)
            states.let_go(db, [before])
        if before:
            remove(self._directory / "states" / before)

    def forget_client(self, run_id: str, client: str) -> None:
        """Remove a client's record and state for good."""
        with self._write(durable=True) as db:
            db.execute("DELETE FROM clients WHERE run = ? AND client = ?", (run_id, client))
            states.let_go_of_others(db)
        self._sweep()

    def runs(self) -> tuple[str, ...]:
        """Every run the store holds a client of, sorted."""
        with self._read() as db:
            return tuple(row[0] for row in db.execute("SELECT DISTINCT run FROM clients ORDER BY run"))

    def client_state(self, run_id: str, client: str) -> tuple[int, Path | None]:
        """A client's last committed round in a run, and its current state's file."""
        with self._read() as db:
            row = db.execute(
                "SELECT round, state FROM clients WHERE run = ? AND client = ?", (run_id, client)
            ).fetchone()
        if row is None:
            return 0, None
        return int(row[0]), self._directory / "states" / row[1] if row[1] else None

    # -------------------------------------------------------------------------------------------------- files

    def body_path(self, key: UpdateKey) -> Path:
        """Where the body of this update is, or will be."""
        return self._directory / "updates" / f"{self._name(key)}.body"

    def fold_path(self, name: str) -> Path:
        """Where the body of this fold is, or will be."""
        return self._directory / "updates" / f"{name}.fold"

    def pending_state_path(self, key: UpdateKey) -> Path:
        """Where the pending client state of this update is, or will be."""
        return self._directory / "states" / f"{self._name(key)}.safetensors"

    def state_path(self, client: str) -> Path | None:
        """The client's current state; None if it has none."""
        return self.client_state(self._run, client)[1]

    def version_path(self, model_digest: str) -> Path:
        """Where the version's raw float32 vector is, or will be."""
        return self._directory / "versions" / f"{model_digest}.f32"

    def add_version(self, number: int, model_digest: str) -> None:
        """Record a verified version whose file is at `version_path`."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO versions VALUES (?, ?, ?)", (self._run, number, model_digest))

    def drop_versions(self, model_digests: Iterable[str]) -> None:
        """Remove cached versions."""
        model_digests = tuple(model_digests)
        with self._write() as db:
            db.executemany("DELETE FROM versions WHERE digest = ?", [(digest,) for digest in model_digests])
        with storage_faults(self._directory):
            for digest in model_digests:
                self._spares.give("version", self.version_path(digest))

    def blob_path(self, digest: str) -> Path:
        """Where a whole, verified blob is, or will be."""
        return self._directory / "blobs" / digest

    def partial_path(self, digest: str) -> Path:
        """Where a blob is collected while it arrives."""
        return self._directory / "partial" / digest

    def clear_partial(self) -> None:
        """Remove what is left of fetches nobody will go on with."""
        with storage_faults(self._directory):
            for path in (self._directory / "partial").iterdir():
                remove(path)

    def masked_path(self, name: str) -> Path:
        """Where a masked upload is, or will be; gone after a restart."""
        return self._directory / "masked" / name

    def rounding_secret(self) -> bytes:
        """The 32 bytes that the rounding of this worker's updates is drawn from."""
        return secure_memory.rounding_secret(self._directory, secrets.token_bytes)

    def discard_file(self, purpose: str, path: Path) -> None:
        """Remove a file of the store that no record names; an absent one is no error."""
        with storage_faults(self._directory):
            self._spares.give(purpose, path)

    def take_spare(self, purpose: str, size: int, path: Path) -> bool:
        """Move a file that may be overwritten to `path`; False if there is none to spare."""
        with storage_faults(self._directory):
            return self._spares.take(purpose, size, path)

    def close(self) -> None:
        """Close the database and let other workers use the directory."""
        with self._mutex:
            self._db.close()
        self._lock.release()

    def _name(self, key: UpdateKey) -> str:
        # Client ids are hashed: "..", upper against lower case and length are no file system's business.
        return hashlib.sha256("\0".join(map(str, folds.row_of(self._run, key))).encode()).hexdigest()[:40]

    def _drop_damaged(self, *, thorough: bool) -> None:
        """Drop updates whose files are gone or, after a reboot, differ from what was recorded."""
        with self._read() as db:
            held = folds.held(db, self._run)
        bodies = {self._body_of(each): each for each in held}  # a fold's once, however many are in it
        whole = {path for path, each in bodies.items() if folds.is_whole(path, each, thorough=thorough)}
        bad = [
            each.key
            for each in held
            if self._body_of(each) not in whole
            or not folds.has_state(self.pending_state_path(each.key), each, thorough=thorough)
        ]
        if bad:
            log_event(_log, logging.WARNING, "updates_damaged", count=len(bad), action="train again")
            self.drop(bad)

    def _body_of(self, finished: Finished) -> Path:
        return self.fold_path(finished.fold) if finished.fold else self.body_path(finished.key)

    def _sweep(self) -> None:
        """Remove files no row names: half-written ones, and those of a crash between row and file."""
        with self._read() as db:
            held = folds.held(db, self._run)
            states = {row[0] for row in db.execute("SELECT state FROM clients")}
            versions = {f"{row[0]}.f32" for row in db.execute("SELECT digest FROM versions")}
        bodies = {self._body_of(finished).name for finished in held}
        states |= {self.pending_state_path(finished.key).name for finished in held}
        with storage_faults(self._directory):
            self._spares.clear()
            for folder, known in (("updates", bodies), ("states", states), ("versions", versions)):
                for path in (self._directory / folder).iterdir():
                    if path.name not in known:
                        remove(path)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._faults():
            yield self._db

    @contextmanager
    def _write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction; `durable`: on disk when this returns."""
        with self._mutex, self._faults():
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageFailed(
                f"the store in {self._directory} cannot be used: {error}; make the directory writable and make room, "
                "then start the worker again",
                full=getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL,
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    make_database_private(path)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    db.executescript(
        "PRAGMA journal_mode=WAL;" + _SCHEMA + folds.SCHEMA + states.SCHEMA + secure_memory.SCHEMA
    )
    return db


def _fact(db: sqlite3.Connection, name: str) -> str:
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])


def _set_fact(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _set_client(
    db: sqlite3.Connection, run: str, client: str, round_number: int, name: str, digest: str
) -> str:
    """Replace a client's row; returns the file name of its state before, if that is no longer in use."""
    before = db.execute("SELECT state FROM clients WHERE run = ? AND client = ?", (run, client)).fetchone()
    row = (run, client, round_number, name, digest)
    db.execute("INSERT OR REPLACE INTO clients VALUES (?, ?, ?, ?, ?)", row)
    return "" if before is None or before[0] == name else str(before[0])
