"""Files and folders that nobody but their owner may read, private from the instant they exist.

Permissions are given at creation and set again on the open file, so that no process mask widens or narrows them and
no moment passes in which another user could open a key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from ssd.files import sync_folder

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_private_folder(path: Path) -> None:
    """Creates `path` for its owner alone, its parents as any others; a folder that is there stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(FOLDER_MODE)


def create_private(path: Path, data: bytes) -> None:
    """Writes a new file and flushes it to the disk; if that fails, there is none.

    Raises:
        FileExistsError: there is one; it is left as it is.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(handle, "wb") as file:
            os.fchmod(handle, FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(handle)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace_private(path: Path, data: bytes) -> None:
    """Makes `path` hold exactly this: a reader, or a crash, sees the old content or the new one, never half."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    create_private(new, data)
    try:
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_database_private(path: Path) -> None:
    """Has a SQLite database be its owner's alone: one that is not there is made empty, one that is open to others is closed.

    SQLite gives the files beside a database the database's permissions, so those that were made before are closed too.
    Called before the database is opened. What the system refuses here, SQLite reports with better words.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
        with contextlib.suppress(OSError):
            if file.stat().st_mode & 0o077:
                file.chmod(FILE_MODE)
