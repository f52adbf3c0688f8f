"""What happened to every invited client of an attempt, kept for whoever asks later. Pure; decides nothing.

The round machine needs none of this: it is written down when an attempt ends, after its outcome is durable, and a
crash before that loses it. A client's notes are bounded, so that a worker that is refused for ever costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.core import effects, events
from coordinator.core.effects import Effect
from coordinator.core.events import Event

Json = Any
Key = tuple[int, int]
"""Round and attempt."""
MOST_NOTES = 24
"""Of one client in one attempt; of more the first ones are kept, and how many there were."""
ACCEPTED, REJECTED, DISCARDED = "accepted", "rejected", "discarded"
ASKED, FAILED, REVOKED, AWAY = "asked", "failed", "revoked", "away"
"""What a note says: a task was sent, training failed, the operator revoked it, its worker went away."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to a client."""

    at: float
    """Unix seconds."""
    what: str
    reason: str = ""
    worker: str = ""

    def to_json(self) -> Json:
        """`[at, what, reason, worker]`."""
        return [self.at, self.what, self.reason, self.worker]


@dataclass(slots=True)
class _Client:
    worker: str = ""
    notes: list[Note] = field(default_factory=list)
    dropped: int = 0

    def add(self, note: Note) -> None:
        if len(self.notes) < MOST_NOTES:
            self.notes.append(note)
        else:
            self.dropped += 1


class ClientHistory:
    """Of the attempt under way and of the one before it, for which something may still come in, too late.

    An attempt that was picked up after a restart has notes from there on only.
    """

    def __init__(self) -> None:
        self._attempts: dict[Key, dict[str, _Client]] = {}
        self._unwritten: set[Key] = set()

    def begin(self, round_number: int, attempt: int, cohort: Sequence[str]) -> None:
        """Another attempt is under way."""
        newest = list(self._attempts.items())[-1:]
        self._attempts = {**dict(newest), (round_number, attempt): {client: _Client() for client in cohort}}
        self._unwritten &= self._attempts.keys()

    def record_event(self, event: Event, now: float) -> None:
        """Notes what an event meant, before its effects.

        Args:
            event: as the round machine took it.
            now: Unix seconds.
        """
        match event:
            case events.ClientFailed():
                key = (event.round, event.attempt)
                # Of no client in particular: of all that this worker was asked for and has not brought.
                named = event.clients or self._of(key, event.worker)
                self._report(key, named, Note(now, FAILED, event.reason, event.worker))
            case events.ClientRevoked():
                self._note(self._present(), [event.client], Note(now, REVOKED))
            case events.WorkerDetached():
                key = self._present()
                self._note(key, self._of(key, event.worker), Note(now, AWAY, "", event.worker))

    def done(self, effect: Effect, now: float) -> None:
        """Notes an effect that was carried out: an attempt exists once it is journaled, and not before.

        Args:
            effect: of the round machine.
            now: Unix seconds.
        """
        match effect:
            case effects.OpenAttempt():
                self.begin(effect.round, effect.attempt, effect.cohort)
            case effects.SendTrain():
                key = (effect.round, effect.attempt)
                for client in effect.clients:
                    if client in self._attempts.get(key, {}):
                        self._attempts[key][client].worker = effect.worker
                self._note(key, effect.clients, Note(now, ASKED, "", effect.worker))

    def upload(self, round_number: int, attempt: int, clients: Sequence[str], note: Note) -> None:
        """Notes the fate of an upload; of an attempt long gone, or of clients that were not invited, nothing."""
        self._report((round_number, attempt), clients, note)

    def unwritten(self) -> Mapping[Key, Json]:
        """Of every attempt of which something new was noted since the last call: client -> what `Note`s say.

        A client is `{"notes": [[at, what, reason, worker]], "dropped": n}`; one without a note is left out.
        """
        told = {key: _plain(self._attempts[key]) for key in sorted(self._unwritten)}
        self._unwritten.clear()
        return told

    def _present(self) -> Key:
        return next(reversed(self._attempts), (0, 0))

    def _of(self, key: Key, worker: str) -> list[str]:
        """Clients this worker was asked for and that were not accepted."""
        return [
            client
            for client, each in self._attempts.get(key, {}).items()
            if each.worker == worker and not any(note.what == ACCEPTED for note in each.notes)
        ]

    def _report(self, key: Key, clients: Sequence[str], note: Note) -> None:
        """Only of whom the worker was asked: an upload may name anybody, and nobody writes into others' records."""
        asked = self._attempts.get(key, {})
        self._note(
            key, [each for each in clients if each in asked and asked[each].worker == note.worker], note
        )

    def _note(self, key: Key, clients: Sequence[str], note: Note) -> None:
        for client in clients:
            if client in self._attempts.get(key, {}):
                self._attempts[key][client].add(note)
                self._unwritten.add(key)


def _plain(clients: Mapping[str, _Client]) -> Json:
    return {
        client: {"notes": [note.to_json() for note in each.notes], "dropped": each.dropped}
        for client, each in sorted(clients.items())
        if each.notes
    }
