"""What can happen to a run. Every event carries the time it was seen (monotonic seconds)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something happened at `now`."""

    now: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick(Event):
    """Time passed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerAttached(Event):
    """A worker opened its stream (or changed its clients); `clients` replaces what it hosted before."""

    worker: str
    clients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerDetached(Event):
    """A worker's stream ended."""

    worker: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientRevoked(Event):
    """The operator revoked a client."""

    client: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientsGiven(Event):
    """Clients belong to this worker from now on, whoever had them."""

    worker: str
    clients: tuple[str, ...]
    granted: bool = False
    """Whether the worker may bring no others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadVerified(Event):
    """A whole upload arrived and passed every check of its content."""

    upload: int
    worker: str
    round: int
    attempt: int
    clients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientFailed(Event):
    """A client reported a failure, or its upload was rejected."""

    worker: str
    round: int
    attempt: int
    clients: tuple[str, ...]
    """Empty: every invited client of the worker that is still wanted."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SharersFixed(Event):
    """Secure aggregation: the participants have exchanged keys; only these clients' workers can still upload."""

    round: int
    attempt: int
    clients: tuple[str, ...]
    fewest_uploads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SumAborted(Event):
    """Secure aggregation: this attempt's sum will never be opened, and nobody revealed anything."""

    round: int
    attempt: int
    reason: str
    halt: bool = False
    """Whether another attempt would fare no better before the operator has done something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SumOpened(Event):
    """Secure aggregation: the sum over the journaled set is open."""

    round: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UnmaskingStuck(Event):
    """Secure aggregation: shares were asked for and the sum cannot be opened; no other set may be."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionCommitted(Event):
    """The commit asked for is durable."""

    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitFailed(Event):
    """The journaled set cannot be made into a version for now; the operator must look."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseRequested(Event):
    """Finish the attempt under way, then start no other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeRequested(Event):
    """Go on after a pause or a halt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainRequested(Event):
    """Finish the attempt under way, then stop."""
