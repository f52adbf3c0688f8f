"""What can happen to a session. Messages down (`ssd_wire.messages`) but the welcome are events as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import Message
from ssd_wire.messages import (
    Cancel,
    Committed,
    Drain,
    Evaluate,
    Flush,
    RunChanged,
    SecureMessage,
    Train,
    UpdateKey,
    Welcome,
)
from ssd_wire.uploads import Verdict
from worker.core.finished import Finished


@dataclass(frozen=True, kw_only=True, slots=True)
class DialDue:
    """It is time to open the control stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkLost:
    """The control stream ended, was refused or could not be opened."""

    reason: str
    """The coordinator's word for it (`ssd-reason`), or the transport's."""
    detail: str = ""
    uniform: float = 0.5
    """A draw in [0, 1) for the jitter of the next wait."""


Summed = tuple[int, str, str]
"""Round, base digest and client of an update that went into a masked upload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRun:
    """What the worker's store holds of one run."""

    run_id: str
    rounds: Mapping[str, int] = field(default_factory=dict)
    """Client -> last committed round; absent means 0."""
    held: tuple[Finished, ...] = ()
    versions: Mapping[int, str] = field(default_factory=dict)
    """Verified versions on disk: number -> model digest."""
    newest: tuple[int, str] = (0, "")
    """Number and model digest of the newest version the worker heard of."""
    level: str = "off"
    """The highest level of secure aggregation the run was ever seen with."""
    summed: frozenset[Summed] = frozenset()
    """What went into masked uploads of attempts that this worker did not refuse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcomed:
    """The coordinator answered the hello."""

    welcome: Welcome
    stored: StoredRun | None = None
    """What the store holds of the welcome's run, if that is not the run of the hello."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Base version, artefacts and declaration of the work are on disk and verified."""

    key: UpdateKey
    """With an empty client."""
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareFailed:
    """They could not be got. `retry`: only because the session ended."""

    key: UpdateKey
    reason: str
    detail: str
    retry: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientTrained:
    """The training process finished a client; its files are written."""

    finished: Finished


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldWritten:
    """The fold of the clients that were trained together so far is written, in a file that replaces the one before."""

    key: UpdateKey
    """Of the job, with an empty client."""
    finished: tuple[Finished, ...]
    """Everybody in the fold."""
    added: frozenset[str]
    """Those of them who were not in the file before."""
    before: str = ""
    """Name of the file before; empty: this is the fold's first."""
    closed: bool = False
    """Nobody will be added to this fold any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TogetherEnded:
    """The training process is through with clients it was given together; what was added was said before."""

    key: UpdateKey
    """With an empty client."""
    died: str = ""
    """How it died; empty: it did not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientFailed:
    """The training process could not train a client, or died while it tried."""

    key: UpdateKey
    reason: str
    detail: str
    whole_task: bool = False
    """True: no client of this task can be trained here (the declaration differs)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStopped:
    """The training process is idle after a stop that was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadEnded:
    """The coordinator judged an upload."""

    upload: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLeftOut:
    """These clients' updates failed the worker's own check before folding; the upload goes on without them."""

    upload: int
    failures: Mapping[UpdateKey, tuple[str, str]]
    """Update -> (reason, detail)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadBroken:
    """An upload ended without a verdict, and its session is void."""

    upload: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadDue:
    """`upload_within_seconds` of an attempt have passed."""

    round: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationEnded:
    """An evaluation finished; with `error` set it did so without values."""

    version: int
    values: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    """What happened, for this worker's own log."""
    reason: str = ""
    """The word for it that the coordinator gets."""
    clients: tuple[str, ...] | None = None
    """Those that `values` are sums over; None: measured on probe data."""
    lost: bool = False
    """The session ended before it began; nobody waits for it any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureHeard:
    """A message of secure aggregation was fetched."""

    round_id: bytes
    message: Message


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureUnreadable:
    """What was sent for a round id is no message of secure aggregation, or cannot be had."""

    round_id: bytes
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureAnswered:
    """The participant took a message and has written down what it must not forget."""

    round_id: bytes
    answer: bytes = b""
    """What it says to it, encoded; empty: nothing."""
    ready: bool = False
    """Its masks are fixed: it may upload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureRefused:
    """The participant takes no further part in this round id; its keys are gone."""

    round_id: bytes
    reason: AbortReason
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureNotBegun:
    """The session ended before the participant was made: the offer counts as not received."""

    round_id: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequested:
    """The operator wants the worker to end."""


Event = (
    DialDue | LinkLost | Welcomed | Prepared | PrepareFailed | ClientTrained | ClientFailed | TrainingStopped
    | FoldWritten | TogetherEnded
    | UploadEnded | UploadLeftOut | UploadBroken | UploadDue | EvaluationEnded | StopRequested
    | SecureHeard | SecureUnreadable | SecureAnswered | SecureRefused | SecureNotBegun
    | Train | Flush | Evaluate | Cancel | Drain | Committed | RunChanged | SecureMessage
)  # fmt: skip
