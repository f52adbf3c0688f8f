"""What the driver needs from the outside world, as protocols; plain records only, protobuf never appears."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ssd.daemon.tracing.context import SpanContext
from ssd.secagg.client.participant import RoundMemory
from ssd_wire.messages import BlobRef, Down, Evaluate, TaskClient, Train, Up, UpdateKey, Welcome
from ssd_wire.uploads import Envelope, Verdict
from worker.core.effects import OpenLink
from worker.core.events import Event, StoredRun
from worker.core.finished import Finished

Buffer = bytes | bytearray | memoryview


class Clock(Protocol):
    """Time and chance, so that tests can do without."""

    def monotonic(self) -> float:
        """Seconds, for durations."""
        ...

    def uniform(self) -> float:
        """A draw in [0, 1)."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SecureRecords(RoundMemory, Protocol):
    """What a participant must not forget, and what its worker adds. Behaviour: each survives power loss when it returns."""

    def remember_clients(self, round_id: bytes, run_id: str, clients: Iterable[str]) -> None:
        """Behaviour: whose updates are in the masked vector of a round id."""
        ...

    def remember_refused(self, round_id: bytes) -> None:
        """Behaviour: what was uploaded for that round id counts for nothing; an unknown one is no error."""
        ...


class Store(Protocol):
    """The worker's durable memory: finished updates, client states, cached versions and blobs.

    Behaviour common to all: everything is about the current run (`enter_run`); a failure of the medium raises
    `worker.errors.StorageFailed` with a sentence and changes nothing. Calls may come from any thread.
    """

    def instance_id(self) -> str:
        """32 hex digits made when the state directory was made."""
        ...

    def current_run(self) -> str:
        """The run last entered; empty at first."""
        ...

    def load_run(self, run_id: str) -> StoredRun: ...

    def enter_run(self, run_id: str) -> None:
        """Behaviour: survives power loss. Cached versions of other runs are removed, client states are not."""
        ...

    def remember_version(self, number: int, model_digest: str) -> None:
        """Behaviour: the newest version of the current run; survives the death of the process."""
        ...

    def remember_level(self, level: str) -> None:
        """Behaviour: the current run's level of secure aggregation; survives power loss."""
        ...

    def keep(self, finished: Finished) -> None:
        """Behaviour: records an update whose files are at `body_path` and, with a state digest,
        `pending_state_path`. Survives the death of the process, not necessarily a power cut.
        """
        ...

    def keep_fold(self, finished: Sequence[Finished]) -> None:
        """Behaviour: as `keep`, in one transaction, for updates in one fold at `fold_path`. A fold that nobody is in any
        more is removed with its file.
        """
        ...

    def forget(self, finished: Iterable[Finished]) -> None:
        """Behaviour: as `drop`; files of folds that no record names are removed, too."""
        ...

    def drop(self, keys: Iterable[UpdateKey]) -> None:
        """Behaviour: removes updates, their pending states and files; unknown keys are no error."""
        ...

    def promote(self, keys: Iterable[UpdateKey]) -> None:
        """Behaviour: in one transaction that survives power loss the pending states become current, with their
        rounds, and the updates are gone. A key that is not kept, or whose round is not newer than the
        client's, changes nothing.
        """
        ...

    def reinitialise(self, rounds: Mapping[str, int]) -> None:
        """Behaviour: survives power loss; the clients have no state, and these last committed rounds."""
        ...

    def body_path(self, key: UpdateKey) -> Path:
        """Where the body of this update is, or will be."""
        ...

    def fold_path(self, name: str) -> Path:
        """Where the body of this fold is, or will be."""
        ...

    def pending_state_path(self, key: UpdateKey) -> Path:
        """Where the pending client state of this update is, or will be."""
        ...

    def state_path(self, client: str) -> Path | None:
        """The client's current state; None if it has none."""
        ...

    def version_path(self, model_digest: str) -> Path:
        """Where the version's raw float32 vector is, or will be."""
        ...

    def add_version(self, number: int, model_digest: str) -> None: ...

    def drop_versions(self, model_digests: Iterable[str]) -> None: ...

    def blob_path(self, digest: str) -> Path:
        """Where a whole, verified blob (declaration, artefact) is, or will be."""
        ...

    def partial_path(self, digest: str) -> Path:
        """Where a blob is collected while it arrives; survives restarts."""
        ...

    def clear_partial(self) -> None:
        """Behaviour: removes every file of `partial_path`."""
        ...

    def discard_file(self, purpose: str, path: Path) -> None:
        """Behaviour: removes a file no record names; an absent one is no error."""
        ...

    def take_spare(self, purpose: str, size: int, path: Path) -> bool:
        """Behaviour: moves a file with content of no use to `path`, to be overwritten; False if there is none.
        Purposes: `version`, `delta`, `body`.
        """
        ...

    def masked_path(self, name: str) -> Path:
        """Behaviour: where a masked upload is, or will be; whatever is there at a start is removed."""
        ...

    def rounding_secret(self) -> bytes:
        """Behaviour: 32 random bytes, made when first asked for, the same ever after; readable for the owner alone."""
        ...

    @property
    def secure(self) -> SecureRecords:
        """Rounds of secure aggregation: survives power loss."""
        ...

    def close(self) -> None: ...


class BlobSink(Protocol):
    """Where a fetched blob goes: chunks in order, each already checked."""

    @property
    def received(self) -> int:
        """Bytes that are here and checked; the fetch goes on from here."""
        ...

    def expect(self, size: int, chunk_digests: bytes) -> None:
        """Behaviour: the whole blob's chunk list; raises `BlobUnavailable` if it is not the list of this blob."""
        ...

    def put(self, offset: int, data: Buffer) -> None:
        """Behaviour: checks and stores the chunk at `offset`; raises `BlobUnavailable` if it is corrupt."""
        ...


class UploadSource(Protocol):
    """The body of an upload."""

    envelope: Envelope

    def chunk(self, offset: int, size: int) -> Buffer:
        """Behaviour: `size` bytes at `offset`."""
        ...


class Stream(Protocol):
    """An open control stream."""

    def messages(self) -> AsyncIterator[Down]:
        """Messages down until the stream ends; then raises `LinkBroken` with the coordinator's reason.

        Raises:
            CoordinatorFault: a message is malformed.
        """
        ...

    async def send(self, message: Up) -> None:
        """Behaviour: raises `LinkBroken` if the stream has ended."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DataAccess:
    """What a data call of a session needs."""

    session: str
    endpoints: tuple[str, ...] = ()
    """Empty: where the control stream goes."""
    parent: SpanContext | None = None
    """The span its calls belong to; None: they are not traced."""


class Transport(Protocol):
    """The coordinator, reached over the network."""

    def attend(self, opening: OpenLink) -> AbstractAsyncContextManager[Stream]:
        """Behaviour: opens the control stream and sends the hello, with the worker's own name in it; leaving the context ends the stream."""
        ...

    async def fetch(self, access: DataAccess, blob: BlobRef, sink: BlobSink) -> None:
        """Behaviour: fills the sink from where it stands to the end, in one call.

        Raises:
            LinkBroken: the call broke; go on with the same sink.
            SessionEnded: the session is over.
            BlobUnavailable: the coordinator does not have it, or a chunk was corrupt.
        """
        ...

    async def submit(
        self, access: DataAccess, source: UploadSource, on_hold: Callable[[bool], None]
    ) -> Verdict:
        """Behaviour: one upload call from where the coordinator says to the verdict.

        Raises:
            LinkBroken: the call broke without a verdict; the same envelope goes on where it stopped.
            SessionEnded: the session is over.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTask:
    """Everything a task needs, verified and on disk."""

    declaration: Path
    declaration_digest: str
    base: Path
    artefacts: Mapping[str, tuple[Path, tuple[int, ...]]] = field(default_factory=dict)
    update_encoding: str = "float32"
    max_cohort: int = 1
    max_client_weight: int = 1
    clip_norm: float | None = None


class Trainer(Protocol):
    """The training process. One job at a time; results come as events through `events`."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`, as far as known."""
        ...

    @property
    def device_memory(self) -> int:
        """Bytes of the device, 0 if unknown."""
        ...

    @property
    def device_memory_used(self) -> int:
        """Bytes, 0 if unknown."""
        ...

    def busy_seconds(self) -> float:
        """Seconds the process has been busy since it was made."""
        ...

    async def train(self, task: Train, client: TaskClient, prepared: PreparedTask) -> None:
        """Behaviour: answered by exactly one `ClientTrained` or `ClientFailed`, unless stopped."""
        ...

    async def train_together(
        self, task: Train, clients: Sequence[TaskClient], prepared: PreparedTask
    ) -> None:
        """Behaviour: trains one after the other and adds them up. Answered by a `FoldWritten` now and then, a
        `ClientFailed` for each that fails, and by exactly one `TogetherEnded` at the end, unless stopped: then what was
        added is written first. If the process dies, what was added since the last `FoldWritten` is lost.
        """
        ...

    async def end_together(self) -> None:
        """Behaviour: the fold is written soon and closed; the job ends when the client under way is finished, in a fold of
        its own.
        """
        ...

    async def evaluate(self, version: int, run_seed: int, prepared: PreparedTask) -> None:
        """Behaviour: answered by exactly one `EvaluationEnded`, unless stopped."""
        ...

    async def evaluate_clients(self, evaluate: Evaluate, prepared: PreparedTask) -> None:
        """Behaviour: measures clients in their current states; answered as `evaluate` is, with those measured."""
        ...

    async def stop(self) -> None:
        """Behaviour: ends the job under way, if need be by killing the process; answered by exactly one
        `TrainingStopped`. Files of an unfinished job are gone.
        """
        ...

    async def close(self) -> None:
        """Behaviour: the process is gone when this returns."""
        ...


Post = Callable[[Event], None]
"""Hands an event to the driver's queue; called on the event loop only."""

Access = Callable[[], tuple[Welcome, DataAccess]]
"""Returns the welcome in use and what a data call needs; called after a welcome only."""

Performers = Mapping[type, Callable[[Any], Coroutine[Any, Any, None]]]
"""Who carries out an effect, by the effect's type; the driver awaits each before the next."""
