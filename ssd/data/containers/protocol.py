"""What reading images needs from the place they lie in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from ssd.data.images.walk import Walk


def go_on() -> bool:
    """The `give_up` of somebody who has time."""
    return False


class Container(Protocol):
    """Files under one path, by relative names with forward slashes.

    Behaviour: `walk` gives the same names in the same order as long as nothing changes. `open` gives a new, seekable
    stream at every call and may be called from several threads at once. A name that `walk` did not give opens nothing.
    """

    @property
    def path(self) -> Path:
        """Where it is, for messages."""
        ...

    @property
    def key(self) -> str:
        """Tells it from every other container of the same path; under it an index of its files is kept."""
        ...

    def walk(self, give_up: Callable[[], bool] = go_on) -> Walk:
        """Every file, without opening any.

        Raises:
            DataError: it cannot be read, or is not what its name says.
        """
        ...

    def folders(self) -> tuple[str, ...]:
        """The visible top-level folders, sorted; none if it cannot be read."""
        ...

    def stamp(self, relative: str) -> tuple[int, int]:
        """A file's size in bytes and a number that changes when it is written anew.

        Raises:
            OSError: it is gone.
        """
        ...

    def open(self, relative: str) -> BinaryIO:
        """The bytes of one file.

        Raises:
            OSError: it is gone or cannot be read.
        """
        ...

    def changed(self, seen: Mapping[str, int]) -> bool:
        """Whether names may have come or gone since a walk found the `folders` that are `seen`."""
        ...
