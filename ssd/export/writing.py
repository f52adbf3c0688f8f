"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ssd.files import write_atomically

MARK = "lineage.json"
"""Only a folder that holds this file, and none that we do not write, is replaced."""


class PlaceTaken(ValueError):
    """Something is there that is not replaced; the message says what to do."""


def write_file(path: Path, content: bytes, *, force: bool) -> None:
    """Write one file.

    Raises:
        PlaceTaken: there is one, and `force` is not given; or a folder has the name.
        OSError: it cannot be written; nothing is left behind.

    """
    refuse_taken_file(path, force=force)
    write_atomically(path, content)


def write_folder(path: Path, files: Mapping[str, bytes], known: frozenset[str], *, force: bool) -> None:
    """Write a folder of files, all of them or none.

    Args:
        path: of the folder, whose own parent must exist.
        files: contents by name.
        known: every name a folder of ours may have; with `force`, a folder with others is kept all the same.
        force: replace a folder of ours.

    Raises:
        PlaceTaken: something is there that is not replaced.
        OSError: it cannot be written; what was there is still there, and nothing else is left behind.

    """
    refuse_taken_folder(path, known, force=force)
    path = path.absolute()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if path.is_dir():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.is_dir():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def refuse_taken_file(path: Path, *, force: bool) -> None:
    """Raise `PlaceTaken` unless a file may be written there."""
    if path.is_dir():
        raise PlaceTaken(
            f"{path} is a folder: with --format, --out is one file (leave --format out for a folder)"
        )
    if path.exists() and not force:
        raise PlaceTaken(f"{path} exists: choose another name or add --force")


def refuse_taken_folder(path: Path, known: frozenset[str], *, force: bool) -> None:
    """Raise `PlaceTaken` unless a folder may be written there."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise PlaceTaken(f"{path} is no folder: without --format, --out is a new folder; choose another name")
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return
    if not force:
        raise PlaceTaken(f"{path} exists: choose another name or add --force")
    if MARK not in names or not names <= known or any(entry.is_dir() for entry in path.iterdir()):
        raise PlaceTaken(
            f"{path} holds files that `ssd export` did not write, so --force does not replace it: choose another name"
        )
