"""A run's history copied into event files, look after look, until the run is over or nobody answers any more."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from coordinator.cli.track.history import RunHistory, RunProgress
from coordinator.cli.track.scalars import rows
from coordinator.errors import OperatorFault

if TYPE_CHECKING:
    from coordinator.cli.track.tensorboard import EventFile

Json = Any
PATIENCE_SECONDS = 60.0
FEWEST_MISSES = 3
"""A coordinator may be restarted: it is gone when nobody answered so often and for so long."""
QUIET_LOOKS = 2
"""An evaluation of the last version may come after the last round: so many looks find nothing new, then it is over."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class NameUnusable(OperatorFault):
    """What the coordinator calls its run is no name for a folder."""

    code = "name_unusable"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found."""

    standing: RunProgress
    rounds: Sequence[Mapping[str, Json]]
    evaluations: Sequence[Mapping[str, Json]]


class Copy:
    """The files of the runs that a history tells of, one after another.

    Args:
        history: where to look.
        folder: every run gets a folder of its own in it.
        open_file: opens the event file of a folder.
        said: is told the file, the newest round and how many scalars were written.
    """

    def __init__(
        self,
        history: RunHistory,
        folder: Path,
        open_file: Callable[[Path], EventFile],
        said: Callable[[Path, int, int], None],
    ) -> None:
        self._history = history
        self._folder = folder
        self._open_file = open_file
        self._said = said
        self._closing = ExitStack()
        self._file: EventFile | None = None
        self._standing: RunProgress | None = None
        self._newest = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    @property
    def complete(self) -> bool:
        """Whether the run had all of its rounds when it was last looked at."""
        last = self._standing
        return last is not None and (last.finished or 0 < last.rounds <= self._newest)

    def read(self) -> Seen:
        """What there is now. Raises what the history raises."""
        standing = self._history.standing()
        known = self._newest if self._same(standing) else 0
        return Seen(standing, self._history.rounds(known), self._history.evaluations())

    def write(self, seen: Seen, *, always_say: bool = False) -> int:
        """Write what is new, in the file of its run; how many scalars that were.

        Raises:
            NameUnusable: there can be no folder of the run's name.
            OperatorFault: as `EventFile`.
        """
        if self._file is None or not self._same(seen.standing):
            name = f"{seen.standing.method}-{seen.standing.run_id}"
            if not _NAME.fullmatch(name):
                raise NameUnusable(f"the run is called {name!r}, which is no name for a folder")
            self._closing.close()
            self._file = self._closing.enter_context(self._open_file(self._folder / name))
            self._newest = 0
        self._standing = seen.standing
        new = self._file.add(rows(seen.rounds, seen.evaluations))
        committed = [each["round"] for each in seen.rounds if each["outcome"] == "committed"]
        self._newest = max(committed, default=self._newest)
        if new or always_say:
            self._said(self._file.path, self._newest, new)
        return new

    def _same(self, standing: RunProgress) -> bool:
        last = self._standing
        return last is not None and (last.method, last.run_id) == (standing.method, standing.run_id)


def follow(copy: Copy, new: int, pause: Callable[[], None], now: Callable[[], float]) -> None:
    """Look again and again until the run is over.

    Args:
        copy: has been written to once.
        new: how many scalars that were.
        pause: waits between two looks.
        now: seconds of a clock that only goes forward.

    Raises:
        OperatorFault: nobody answers any more, and the run had rounds to come when somebody last did; or a file
            cannot be written.
    """
    quiet = 1 if copy.complete and new == 0 else 0
    missed, heard = 0, now()
    while quiet < QUIET_LOOKS:
        pause()
        try:
            seen = copy.read()
        except OperatorFault:
            missed += 1
            if missed < FEWEST_MISSES or now() - heard <= PATIENCE_SECONDS:
                continue
            if copy.complete:
                return
            raise
        missed, heard = 0, now()
        new = copy.write(seen)
        quiet = quiet + 1 if copy.complete and new == 0 else 0
