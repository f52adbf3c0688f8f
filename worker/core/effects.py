"""What the driver must do, in the order given. Whatever persists comes before whatever tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ssd.secagg.protocol.messages import Message, Offer
from ssd_wire.messages import BlobRef, Evaluate, TaskClient, Train, Up, UpdateKey, Welcome
from worker.core.finished import Finished


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenLink:
    """Open the control stream and say hello, with these fields of `ssd_wire.messages.Hello` and the shell's own."""

    run_id: str
    clients: Mapping[str, int]
    versions_held: tuple[int, ...]
    held_updates: tuple[UpdateKey, ...]
    newest: tuple[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloseLink:
    """End the control stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Redial:
    """Raise `DialDue` after a while."""

    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """The coordinator will never take this worker as it is: stop with a clear sentence."""

    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decline:
    """Never work for the coordinator's run, as both are configured: stop with a clear sentence."""

    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSession:
    """Use this welcome's token, endpoints and encodings from now on."""

    welcome: Welcome


@dataclass(frozen=True, kw_only=True, slots=True)
class EnterRun:
    """Persist: this run is current. Persisting effects before this one are about the run before."""

    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepUpdate:
    """Persist: a finished update and its pending client state, in one transaction."""

    finished: Finished


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepFold:
    """Persist: finished updates in one fold with their pending client states, in one transaction. They are no longer in
    the fold they were in before.
    """

    finished: tuple[Finished, ...]
    added: frozenset[str]
    """Clients that were not in the file before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetFiles:
    """Remove the files of finished updates nobody wants."""

    finished: tuple[Finished, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Promote:
    """Persist, fsynced: the pending states become current with their update's round; the updates go."""

    keys: tuple[UpdateKey, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DropUpdates:
    """Persist: these updates and their pending states are gone."""

    keys: tuple[UpdateKey, ...]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reinitialise:
    """Persist: these clients have no state; their last committed round is the coordinator's."""

    rounds: Mapping[str, int]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RememberVersion:
    """Persist: the newest version the coordinator named."""

    number: int
    model_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RememberLevel:
    """Persist: the current run has this level of secure aggregation."""

    level: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Distrust:
    """The coordinator contradicts what this worker remembers: stop with a clear sentence."""

    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DropVersions:
    """Remove cached versions."""

    model_digests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare:
    """Get declaration, base version and artefacts. Answered by `Prepared` or `PrepareFailed`."""

    train: Train


@dataclass(frozen=True, kw_only=True, slots=True)
class StopPreparing:
    """Nobody wants what is being prepared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainClient:
    """Let the training process train one client. Answered by `ClientTrained` or `ClientFailed`."""

    train: Train
    client: TaskClient


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTogether:
    """Let the training process train clients one after the other and add them up. Answered by `FoldWritten` now and
    then, `ClientFailed` for those that fail, and `TogetherEnded` at the end.
    """

    train: Train
    clients: tuple[TaskClient, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EndTogether:
    """Have the fold that grows written down now and closed, and end the job when the client that is being trained is
    finished, in a fold of its own.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class StopTraining:
    """Stop what the training process does now. Answered by `TrainingStopped`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """Let the training process measure a version. Answered by `EvaluationEnded`."""

    evaluate: Evaluate


@dataclass(frozen=True, kw_only=True, slots=True)
class StartUpload:
    """Upload one update, or the fold of several. Answered by `UploadEnded` or `UploadBroken`."""

    upload: int
    train: Train
    updates: tuple[Finished, ...]
    secure_round: bytes = b""
    """Mask the fold with the keys of this round id; empty: upload in the clear, in a run without secure
    aggregation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StopUpload:
    """Abandon the upload under way without an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmUploadTimer:
    """Raise `UploadDue` after a while; replaces an earlier timer."""

    round: int
    attempt: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """Send a message up; lost if the stream has ended meanwhile."""

    message: Up


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSecure:
    """Fetch a message of secure aggregation, in the order they came. Answered by `SecureHeard` or
    `SecureUnreadable`.
    """

    round_id: bytes
    blob: BlobRef


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinSecure:
    """Make the participant of a round id and give it the offer. Answered by `SecureAnswered`, `SecureRefused` or
    `SecureNotBegun`.
    """

    round_id: bytes
    offer: Offer
    train: Train


@dataclass(frozen=True, kw_only=True, slots=True)
class TellSecure:
    """Give the participant a message. Answered by `SecureAnswered` or `SecureRefused`."""

    round_id: bytes
    message: Message


@dataclass(frozen=True, kw_only=True, slots=True)
class AcknowledgeSecure:
    """Tell the participant that the coordinator has its masked upload."""

    round_id: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class CloseSecure:
    """Drop the participant's keys and its masked upload."""

    round_id: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Log and count what was decided."""

    event: str
    level: str = "info"
    fields: Mapping[str, object] = field(default_factory=dict)


Effect = (
    OpenLink | CloseLink | Redial | GiveUp | OpenSession | EnterRun | KeepUpdate | KeepFold | ForgetFiles | Promote | DropUpdates
    | Reinitialise | DropVersions | Prepare | StopPreparing | TrainClient | TrainTogether | EndTogether | StopTraining | RunEvaluation | StartUpload
    | StopUpload | ArmUploadTimer | Send | Note | RememberVersion | RememberLevel | Distrust | Decline
    | FetchSecure | JoinSecure | TellSecure | AcknowledgeSecure | CloseSecure
)  # fmt: skip
