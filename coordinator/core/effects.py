"""What the driver must do, in the order given: persist, then send, then measure."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_wire.uploads import UploadFate


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One thing to do before the next event is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterClients(Effect):
    """Persist: these clients exist."""

    clients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BindClients(Effect):
    """Persist: from now on these clients are this worker's."""

    worker: str
    clients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignIndexes(Effect):
    """Persist: index (and with it the scaling vector) of clients, for ever."""

    indexes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAttempt(Effect):
    """Persist: the cohort of an attempt. The running sum starts at zero."""

    round: int
    attempt: int
    cohort: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SendTrain(Effect):
    """Send: train these clients."""

    worker: str
    round: int
    attempt: int
    clients: tuple[str, ...]
    upload_within_seconds: float
    """Seconds; 0: no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldUpload(Effect):
    """Add a verified upload to the running sum."""

    upload: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerUpload(Effect):
    """Send: the fate of an upload."""

    upload: int
    fate: UploadFate
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSum(Effect):
    """Secure aggregation. Persist: the accepted set and who uploaded. Then ask for what opens their sum."""

    round: int
    attempt: int
    accepted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloseAndCommit(Effect):
    """Persist: the accepted set. Then make, persist and announce the next version."""

    round: int
    attempt: int
    accepted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AbandonAttempt(Effect):
    """Persist: the attempt came to nothing. Send: cancel to the workers of its cohort."""

    round: int
    attempt: int
    reason: str
    workers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PersistPaused(Effect):
    """Persist: whether the run is paused."""

    paused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished(Effect):
    """Persist: all planned rounds are committed. Send: tell the workers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt(Effect):
    """Log: only the operator can go on from here."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop(Effect):
    """The drain is complete: stop the daemon."""
