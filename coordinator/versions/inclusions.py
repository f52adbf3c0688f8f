"""Which clients which commits included, in memory: the journal's account, kept up to date by the commits."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.ports.journal import Journal


class Inclusions:
    """Who is in which committed round of the run."""

    def __init__(self, journal: Journal) -> None:
        self.last_rounds = {record.client: record.last_committed_round for record in journal.clients()}
        """Client -> the last committed round that included it; 0 before any."""
        self.accepted_sets = {
            each.round: frozenset(each.accepted) for each in journal.attempts() if each.outcome == "committed"
        }
        """Committed round -> the clients it included."""

    def add(self, round_number: int, accepted: Collection[str]) -> None:
        """A round was committed with these clients."""
        self.last_rounds.update(dict.fromkeys(accepted, round_number))
        self.accepted_sets[round_number] = frozenset(accepted)
