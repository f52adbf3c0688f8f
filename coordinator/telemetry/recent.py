"""What is remembered for people only: who was heard of when, how far clients are, and why somebody dropped out.

Nothing here decides anything, nothing is stored: a restart begins with an empty page. Every collection is bounded,
because names and reasons come from workers; the oldest entry makes room. Times are Unix seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

MOST_DEPARTED = 2048
MOST_CLIENTS = 65536
LONGEST_REASON = 200
STUCK_AFTER = 3
"""Attempts at one round that came to nothing: then it is no accident."""
WENT_AWAY = "went_away"
"""The reason of a worker that ended its stream by itself, or whose connection broke."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """A worker's session ended."""

    at: float
    reason: str
    """`went_away`, or why the coordinator ended it: the word of a refusal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A client, or a whole upload, did not get into a sum."""

    at: float
    round: int
    attempt: int
    reason: str
    """A worker's own word for a failed training, or the word of a refusal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LastContact:
    """Who spoke last for a client that nobody hosts now."""

    at: float
    worker: str


class RecentStatus:
    """Of one coordinator since its start. Used from one event loop."""

    def __init__(self) -> None:
        self._departed: OrderedDict[str, Departure] = OrderedDict()
        self._refused: OrderedDict[str, Drop] = OrderedDict()
        self._failed: OrderedDict[str, Drop] = OrderedDict()
        self._last: OrderedDict[str, LastContact] = OrderedDict()
        self._attempt = (0, 0)
        self._steps: dict[str, tuple[int, int]] = {}
        self._abandoned = (0, 0, "")
        """Round, how many of its attempts were abandoned, and why the last of them was."""

    # ------------------------------------------------------------------------------------------- what is told

    def attached(self, worker: str) -> None:
        """A worker is here (again)."""
        self._departed.pop(worker, None)

    def detached(self, worker: str, clients: Collection[str], reason: str, *, last_seen: float) -> None:
        """A worker's session ended; `last_seen`: when it was last heard of."""
        _put(
            self._departed,
            worker,
            Departure(at=last_seen, reason=_short(reason or WENT_AWAY)),
            MOST_DEPARTED,
        )
        for client in clients:
            _put(self._last, client, LastContact(at=last_seen, worker=worker), MOST_CLIENTS)

    def failed(
        self, clients: Sequence[str], round_number: int, attempt: int, reason: str, now: float
    ) -> None:
        """Clients failed in an attempt."""
        drop = Drop(at=now, round=round_number, attempt=attempt, reason=_short(reason))
        for client in clients:
            _put(self._failed, client, drop, MOST_CLIENTS)

    def refused(self, worker: str, round_number: int, attempt: int, reason: str, now: float) -> None:
        """An upload of a worker was rejected or came too late."""
        drop = Drop(at=now, round=round_number, attempt=attempt, reason=_short(reason))
        _put(self._refused, worker, drop, MOST_DEPARTED)

    def opened(self, round_number: int, attempt: int) -> None:
        """A new attempt: nobody has begun it."""
        self._attempt = (round_number, attempt)
        self._steps = {}

    def abandoned(self, round_number: int, reason: str) -> None:
        """An attempt came to nothing."""
        times = self._abandoned[1] if self._abandoned[0] == round_number else 0
        self._abandoned = (round_number, times + 1, _short(reason))

    def progressed(self, round_number: int, attempt: int, client: str, step: int, steps: int) -> None:
        """A client that was invited has done so many steps of its training."""
        if (round_number, attempt) == self._attempt and 0 <= step <= steps:
            self._steps[client] = (step, steps)

    # ----------------------------------------------------------------------------------------- what is asked

    def stuck(self, round_number: int, deadline_seconds: float) -> str:
        """A sentence for a round whose attempts come to nothing again and again; empty: it is none."""
        of, times, reason = self._abandoned
        if of != round_number or times < STUCK_AFTER:
            return ""
        advice = (
            f"; if clients need longer, raise [round] deadline_seconds (it is {deadline_seconds:g})"
            if reason.startswith("deadline with ")
            else ""
        )
        return f"round {of}: {times} attempts came to nothing, the last one: {reason}{advice}"

    @property
    def departed(self) -> Mapping[str, Departure]:
        """Workers that were here and are not."""
        return self._departed

    def newest_departures(self, most: int) -> list[tuple[str, Departure]]:
        """Workers that were here and are not, the last to leave first, at most `most` of them."""
        return list(islice(reversed(self._departed.items()), most))

    def newest_failures(self, most: int) -> list[tuple[str, Drop]]:
        """The clients that failed, newest first, at most `most` of them."""
        return list(islice(reversed(self._failed.items()), most))

    def newest_refusals(self, most: int) -> list[tuple[str, Drop]]:
        """The workers whose uploads were refused, newest first, at most `most` of them."""
        return list(islice(reversed(self._refused.items()), most))

    def refusal(self, worker: str) -> Drop | None:
        """The last upload of a worker that was refused."""
        return self._refused.get(worker)

    def failure(self, client: str) -> Drop | None:
        """The last failure of a client."""
        return self._failed.get(client)

    def last_contact(self, client: str) -> LastContact | None:
        """Of a client whose worker went away."""
        return self._last.get(client)

    @property
    def progress(self) -> Mapping[str, tuple[int, int]]:
        """Client -> (done, all) steps of the present attempt, of those that told of any."""
        return self._steps

    def steps(self, client: str) -> tuple[int, int] | None:
        """(done, all) steps of the present attempt; None if nothing was said."""
        return self._steps.get(client)


def _put(entries: OrderedDict[str, T], key: str, value: T, most: int) -> None:
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)


def _short(reason: str) -> str:
    return reason[:LONGEST_REASON]
