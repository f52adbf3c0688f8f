"""Some of another container's files: those that a list names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ssd.data.containers.protocol import Container, go_on
from ssd.data.images.decode import Refusal
from ssd.data.images.walk import Walk
from ssd.digest import digest_bytes


class Listed:
    """A `Container` over named files of another; what is named and not there is refused, what is not named is not there.

    Args:
        whole: where the files are.
        names: which.
        file: of the list itself: written anew, it may name others.
    """

    def __init__(self, whole: Container, names: Sequence[str], file: Path) -> None:
        self._whole, self._names, self._file = whole, tuple(sorted(names)), file
        self.path = whole.path
        # One root may hold many clients' images: each list has an index of its own.
        self.key = "list:" + digest_bytes("\n".join(self._names).encode())

    def walk(self, give_up: Callable[[], bool] = go_on) -> Walk:
        """Costs a look at each file."""
        found = Walk(folders={"": _changed_at(self._file)})
        for name in self._names:
            if give_up():
                found.complete = False
                break
            try:
                found.files.append((name, *self._whole.stamp(name)))
            except OSError:
                found.refused[name] = Refusal.UNREADABLE
        return found

    def folders(self) -> tuple[str, ...]:
        """None: a list has classes of its own."""
        return ()

    def stamp(self, relative: str) -> tuple[int, int]:
        """As of the whole."""
        return self._whole.stamp(relative)

    def open(self, relative: str) -> BinaryIO:
        """As of the whole."""
        return self._whole.open(relative)

    def changed(self, seen: Mapping[str, int]) -> bool:
        """Whether the list was written anew."""
        return _changed_at(self._file) != seen.get("", 0)


def _changed_at(file: Path) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
