"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def no_link(path: str, flags: int) -> int:
    """For `open(…, opener=no_link)`: a link in the file's place is refused with `OSError`, and no child inherits the file."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def sync_folder(path: Path) -> None:
    """Has a folder's entries (renames, removals) survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data`, flushed to the disk before it appears under its name; its folder must exist.

    The file gets the permissions any new file of this process gets, so that a daemon of another user can read it.
    """
    # A folder of our own, because a temporary *file* is readable by its owner alone.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        new = Path(folder) / path.name
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
