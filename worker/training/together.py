"""Clients that are trained one after the other and added up where they are trained. Inside the training process only.

The fold is written down whole every few seconds, each time in a new file that takes the place of the one before, so a
kill costs what was trained since. How often depends on what writing takes: at most a twentieth of the time goes into it.

Rules it keeps:

- An update is judged as it is added; one that fails leaves the sum as it was, bit for bit, and is reported.
- A client's next state is on disk before the file that has its update is reported.
- Memory is one sum (8 bytes a value), whatever the number of clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssd.digest import chunk_digests
from ssd.updates.fold import Fold, UpdateRefused
from worker.errors import TaskFault
from worker.training.train import Trained, write_state, write_whole

Json = Any
Report = Callable[[dict[str, Json]], None]

LEAST_SECONDS, MOST_SECONDS = 0.25, 5.0
"""Between two files of one fold."""
TIMES_ITS_COST = 20.0


class GrowingFold:
    """The fold of one job, or of what is left of it after a cut.

    Args:
        out: where files go: `OUT-NUMBER.fold`.
        report: takes what the parent has to know, as it is written to it.
        clock: seconds, for the time between two files.
    """

    def __init__(self, out: str, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._report = report
        self._clock = clock
        self._files = 0
        self._cost = 0.0
        self._begin()

    def _begin(self) -> None:
        self._fold: Fold | None = None
        self._members: list[dict[str, Json]] = []
        self._told = 0
        """How many of the members are in the newest file."""
        self._newest = ""
        self._body: dict[str, Json] = {}
        self._written = self._clock()

    def add(self, order: Mapping[str, Json], trained: Trained) -> None:
        """Take one client in.

        Raises:
            TaskFault: its update is bad; the fold is unchanged.
            OSError: its state cannot be written; the fold is unchanged.
        """
        if self._fold is None:
            self._fold = Fold(trained.plan)
        digest = write_state(order, trained)
        try:
            self._fold.verify_and_add(trained.body, trained.weight)
        except UpdateRefused as refused:
            if digest:
                Path(order["state_out"]).unlink(missing_ok=True)
            raise TaskFault(refused.reason.value, refused.detail) from refused
        self._members.append(
            {
                "client": order["client"],
                "weight": trained.weight,
                "seconds": trained.seconds,
                "state_digest": digest,
            }
        )

    def write_if_due(self) -> None:
        """Write it down if the last time is long enough ago. Not after the last client: closing writes anyway."""
        wait = min(MOST_SECONDS, max(LEAST_SECONDS, TIMES_ITS_COST * self._cost))
        if self._told < len(self._members) and self._clock() - self._written >= wait:
            self._write(closed=False)

    def close(self) -> None:
        """Write down what is not written yet; who comes next is added to another fold.

        Raises:
            OSError: it cannot be written; those not reported yet are lost.
        """
        try:
            if self._members:
                self._write(closed=True)
        finally:
            self._begin()

    def lost(self) -> list[str]:
        """Clients in no file."""
        return [member["client"] for member in self._members[self._told :]]

    def _write(self, *, closed: bool) -> None:
        assert self._fold is not None  # it has members
        started, before = self._clock(), self._newest
        if self._told < len(self._members):
            self._files += 1
            path = Path(f"{self._out}-{self._files}.fold")
            body = self._fold.pack()
            write_whole(path, body)
            self._newest = path.name.removesuffix(".fold")
            self._body = {"size": len(body), "chunk_digests": b"".join(chunk_digests(body)).hex()}
        self._report(
            {
                "event": "fold",
                "name": self._newest,
                "before": before,
                "closed": closed,
                **self._body,
                "members": list(self._members),
                "added": self.lost(),
            }
        )
        self._told, self._written = len(self._members), self._clock()
        self._cost = self._written - started
