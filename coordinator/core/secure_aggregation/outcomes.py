"""What can follow from an input to an attempt at a masked sum, beside the messages that are due."""

from __future__ import annotations

from dataclasses import dataclass

from ssd.secagg.protocol.errors import AbortReason

HOPELESS = frozenset(
    {
        AbortReason.LEVEL_TOO_LOW,
        AbortReason.POLICY_PARTICIPANTS,
        AbortReason.POLICY_CORRUPT,
        AbortReason.POLICY_DROPOUT,
        AbortReason.POLICY_RING_BITS,
        AbortReason.POLICY_WEIGHT,
        AbortReason.POLICY_GRAPH,
        AbortReason.NO_HEADROOM,
        AbortReason.NO_IDENTITY,
        AbortReason.NOT_REGISTERED,
        AbortReason.BASE_OPENED,
        AbortReason.CONFIG_DIFFERS,
        AbortReason.TERMS_CHANGED,
        AbortReason.NO_THRESHOLD,
    }
)
"""Refusals that the next attempt would meet again: somebody has to change a setting first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What follows from an input, beside the messages that are due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParticipantsFixed(Outcome):
    """Keys are exchanged: these clients' workers may upload, and a sum takes so many uploads."""

    clients: tuple[str, ...]
    fewest_uploads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Persist(Outcome):
    """Journal `SecureAttempt.state` before anything else is sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyToOpen(Outcome):
    """Journal `SecureAttempt.state`, then take the masks out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParticipantLost(Outcome):
    """Elastic: the worker's clients cannot be in this attempt."""

    worker: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptGivenUp(Outcome):
    """Nobody revealed anything, and this sum will never be opened."""

    reason: AbortReason
    detail: str
    hopeless: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OpeningBlocked(Outcome):
    """Shares were asked for, and the sum cannot be opened with what can still come."""

    reason: AbortReason
    detail: str
