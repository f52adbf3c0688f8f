"""A folder and its sub-folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from ssd.data.containers.protocol import go_on
from ssd.data.images.walk import Walk, is_litter, walk


class FolderTree:
    """A `Container` over a folder."""

    key = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def walk(self, give_up: Callable[[], bool] = go_on) -> Walk:
        """See `ssd.data.images.walk.walk`."""
        return walk(self.path, give_up)

    def folders(self) -> tuple[str, ...]:
        """The visible sub-folders that are no litter, sorted."""
        try:
            with os.scandir(self.path) as listing:
                return tuple(
                    sorted(
                        entry.name
                        for entry in listing
                        if entry.name[0] != "." and not is_litter(entry.name) and _is_folder(entry)
                    )
                )
        except OSError:
            return ()

    def stamp(self, relative: str) -> tuple[int, int]:
        """Size and modification time in ns; raises OSError."""
        status = os.stat(self.path / relative)
        return status.st_size, status.st_mtime_ns

    def open(self, relative: str) -> BinaryIO:
        """The file; raises OSError."""
        return open(self.path / relative, "rb")

    def changed(self, seen: Mapping[str, int]) -> bool:
        """Costs a look at each sub-folder, whose modification time changes when a name appears or goes."""
        try:
            return any(os.stat(self.path / each).st_mtime_ns != at for each, at in seen.items())
        except OSError:
            return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
