"""Round attempts as everybody shows them: the Operator service, the status page, and the tracking of a state directory."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.ports.figures import Figures
from coordinator.ports.records import AttemptCounts, AttemptRecord, VersionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundView:
    """One try at a round, and what it committed."""

    round: int
    attempt: int
    outcome: str
    reason: str
    """May name workers and clients."""
    cohort_size: int
    accepted: int
    accepted_clients: tuple[str, ...]
    """Empty where nobody asked for names."""
    opened_at: float
    """Unix seconds, as `closed_at`."""
    closed_at: float | None
    model_digest: str = ""
    """Of the version it committed, as `figures`; without one both are empty."""
    figures: Figures

    @property
    def seconds(self) -> float:
        """What the round took; of an attempt that committed nothing how long it was open, 0 while it is."""
        if self.figures.cost is not None:
            return self.figures.cost.seconds
        return 0.0 if self.closed_at is None else max(0.0, self.closed_at - self.opened_at)


def round_view(attempt: AttemptRecord | AttemptCounts, version: VersionRecord | None) -> RoundView:
    """An attempt, with the version of its round if that is known."""
    made = version if attempt.outcome == "committed" else None
    if isinstance(attempt, AttemptRecord):
        invited, names, accepted = len(attempt.cohort), attempt.accepted, len(attempt.accepted)
    else:
        invited, names, accepted = attempt.invited, (), attempt.accepted
    return RoundView(
        round=attempt.round,
        attempt=attempt.attempt,
        outcome=attempt.outcome,
        reason=attempt.reason,
        cohort_size=invited,
        accepted=accepted,
        accepted_clients=names,
        opened_at=attempt.opened_at,
        closed_at=attempt.closed_at,
        model_digest="" if made is None else made.model_digest,
        figures=Figures() if made is None else made.figures,
    )
