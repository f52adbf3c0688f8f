"""Looking into a state database without changing it: beside a running coordinator, or when there is none.

Nothing is created, upgraded or locked, so whoever may read the files may look.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from coordinator.errors import StorageFailed
from coordinator.ports import RunRecord
from coordinator.store import records
from coordinator.store.schema import SCHEMA_VERSION

_LOCK_SECONDS = 2.0


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
        found = db.execute(
            "SELECT record, committed_at, retained FROM versions WHERE run_id ="
            " (SELECT run_id FROM runs ORDER BY position DESC LIMIT 1) ORDER BY number DESC LIMIT 1"
        ).fetchone()
    return 0 if found is None else records.to_version(found[0], found[1], bool(found[2])).full.size
