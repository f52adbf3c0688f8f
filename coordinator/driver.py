"""The only loop: events in, `step`, effects out, in order, each finished before the next event is looked at.

Everything that touches the run's state goes through `Driver._inbox`, so nothing here needs a lock. What must be
durable is written before anything is sent that depends on it; while the medium fails, the loop stands still
and says so, and nothing is lost: the sum stays in memory, workers keep what they finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from coordinator.aggregation import VersionMaker, mean_statistics
from coordinator.catalogue import Catalogue
from coordinator.core import effects, events, registry
from coordinator.core.effects import Effect
from coordinator.core.round import next_wakeup, step
from coordinator.core.state import Fate, Phase, RunState
from coordinator.errors import ClientFault, Reason, StorageFailed
from coordinator.evaluations import Evaluations
from coordinator.logs import event as log_event
from coordinator.messages import (
    Cancel,
    Capabilities,
    Committed,
    Drain,
    Envelope,
    RunChanged,
    StatusView,
    Train,
    Verdict,
    Welcome,
)
from coordinator.metrics import CoordinatorMetrics
from coordinator.ports import (
    AttemptRecord,
    BlobInfo,
    BlobReader,
    Blobs,
    Clock,
    RunRecord,
    Staging,
    Store,
    VersionRecord,
)
from coordinator.sessions import Session, SessionTable
from coordinator.uploads import CONTENT, Addressing, Upload, UploadDesk, check_envelope, verdict_of
from ssd.declaration import Declaration
from ssd.digest import json_digest
from ssd.folding import Fold, FoldPlan
from ssd.scaling import ScalingVector, assign
from ssd.schedule import resolve

T = TypeVar("T")
log = logging.getLogger(__name__)

PROTOCOL_VERSIONS = range(1, 2)
"""Protocol versions this build speaks."""
STORAGE_RETRY_SECONDS = 1.0
SILENT_HEARTBEATS = 3
RESTART_RECONNECT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the driver needs of the configuration."""

    update_encoding: str
    delta_encoding: str
    max_cohort: int
    max_client_weight: int
    expected_clients: int
    seed: int
    threads: int
    heartbeat_seconds: float
    full_versions: int
    deltas: int
    evaluation_every: int
    stop_when_finished: bool
    min_free_bytes: int = 0
    data_endpoints: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tally:
    """What a round cost, for its record."""

    opened_wall: float = 0.0
    opened: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    training_seconds: list[float] = field(default_factory=list)


class Driver:
    """Runs the rounds of one run. Public methods are called from the same event loop."""

    def __init__(
        self,
        *,
        run: RunRecord,
        declaration: Declaration,
        plan: FoldPlan,
        maker: VersionMaker,
        state: RunState,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        staging: Staging,
        clock: Clock,
        metrics: CoordinatorMetrics,
    ) -> None:
        self.run_record = run
        self.declaration = declaration
        self.plan = plan
        self.settings = settings
        self.metrics = metrics
        self.staging = staging
        self.sessions = SessionTable()
        self.storage_trouble = ""
        self._maker = maker
        self._state = state
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._desk = UploadDesk(staging)
        self._inbox: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._catalogue = Catalogue(run, store, blobs)
        self._evaluations = Evaluations(store, self._catalogue, self.sessions, settings.evaluation_every)
        self._scaling: dict[str, ScalingVector | None] = {
            record.client: record.scaling for record in store.clients()
        }
        self._committed_rounds = {record.client: record.last_committed_round for record in store.clients()}
        self._fold = Fold(plan)
        self._offered: dict[int, tuple[Upload, asyncio.Future[Verdict]]] = {}
        self._next_upload = 0
        self._tally = _Tally(opened=clock.monotonic(), opened_wall=clock.wall())
        self._started = clock.monotonic()
        self._stopping = asyncio.Event()
        self._stop_threads = threading.Event()
        self._changed = asyncio.Event()
        self._ready = False

    # ------------------------------------------------------------------------------------------- life cycle

    @property
    def ready(self) -> bool:
        """Whether the loop runs, the medium takes writes and no drain is under way."""
        return self._ready and not self.storage_trouble and not self._stopping.is_set()

    @property
    def state(self) -> RunState:
        """The run's present state."""
        return self._state

    async def run(self) -> None:
        """Drive rounds until `stop` or the run's own end. Attempts under way stay journaled."""
        self._ready = True
        self._evaluations.begin(self._state.version)
        await self._apply(events.Tick(now=self._clock.monotonic()))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                command = asyncio.ensure_future(self._inbox.get())
                timeout = self._seconds_to_next_wakeup()
                await asyncio.wait({command, stopped}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if command.done():
                    await command.result()()
                else:
                    command.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await command
                    if not self._stopping.is_set():
                        self._cut_off_silent()
                        await self._apply(events.Tick(now=self._clock.monotonic()))
                self._publish()
        finally:
            self._ready = False
            stopped.cancel()
            self._say_goodbye()

    def stop(self) -> None:
        """Leave the loop after the event in hand. Idempotent."""
        self._stopping.set()
        self._stop_threads.set()

    async def changed(self) -> None:
        """Wait until something changed since the call."""
        await self._changed.wait()

    def _seconds_to_next_wakeup(self) -> float:
        wakeup = next_wakeup(self._state)
        beat = self.settings.heartbeat_seconds
        if wakeup is None:
            return beat
        return min(beat, max(0.0, wakeup - self._clock.monotonic()))

    def _cut_off_silent(self) -> None:
        limit = SILENT_HEARTBEATS * self.settings.heartbeat_seconds
        for session in self.sessions.silent(self._clock.monotonic() - limit):
            session.close(ClientFault(Reason.SILENT, f"nothing was heard for {limit:g} s"))

    def _say_goodbye(self) -> None:
        """Release everybody who waits: attached workers and uploads without a verdict."""
        for session in self.sessions:
            session.send(Drain(reason="the coordinator stops", reconnect_after=RESTART_RECONNECT_SECONDS))
            session.close()
        gone = ClientFault(Reason.DRAINING, "the coordinator stops; offer the update again to the next one")
        for _, verdict in self._offered.values():
            if not verdict.done():
                verdict.set_result(verdict_of(gone))

    async def _in_loop(self, command: Callable[[], Awaitable[T]]) -> T:
        """Run `command` between two events and give its result."""
        if self._stopping.is_set():
            raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await command()
            except Exception as error:  # noqa: BLE001 - handed to the caller, who knows what it means
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self._inbox.put_nowait(run)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((done, stopped), return_when=asyncio.FIRST_COMPLETED)
            # One turn of grace: the loop may be finishing this very command.
            await asyncio.sleep(0)
            if not done.done():
                raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
            return done.result()
        finally:
            stopped.cancel()

    def post(self, event: events.Event) -> None:
        """Queue an event."""

        async def run() -> None:
            await self._apply(event)

        self._inbox.put_nowait(run)

    async def _apply(self, event: events.Event) -> None:
        before = self._state.phase
        self._state, todo = step(self._state, event)
        for effect in todo:
            await self._execute(effect)
        if self._state.phase is not before:
            log_event(log, logging.INFO, "phase", phase=self._state.phase.value, round=self._state.round)
        self._say_waiting()
        self._evaluations.offer(self._state.policy.seed)
        self._stop_if_finished()

    _said_waiting = ""

    def _say_waiting(self) -> None:
        count, sentence = self._state.waiting_for()
        self.metrics.waiting(count)
        if sentence and sentence != self._said_waiting:
            log_event(log, logging.WARNING, "waiting", clients=count, detail=sentence)
        self._said_waiting = sentence

    def _stop_if_finished(self) -> None:
        if (
            self.settings.stop_when_finished
            and self._state.phase is Phase.FINISHED
            and not self._evaluations.outstanding
        ):
            self.stop()

    # ---------------------------------------------------------------------------------------------- effects

    async def _execute(self, effect: Effect) -> None:
        now = self._clock.wall()
        match effect:
            case effects.RegisterClients():
                await self._durably(lambda: self._store.register_clients(effect.clients, now))
            case effects.AssignIndexes():
                await self._assign(effect)
            case effects.OpenAttempt():
                await self._open_attempt(effect)
            case effects.SendTrain():
                self._send_train(effect)
            case effects.FoldUpload():
                await self._fold_upload(self._offered[effect.upload][0])
            case effects.AnswerUpload():
                _, verdict = self._offered[effect.upload]
                if not verdict.done():
                    verdict.set_result(Verdict(fate=effect.fate, reason=effect.reason, detail=effect.detail))
            case effects.CloseAndCommit():
                await self._commit(effect)
            case effects.AbandonAttempt():
                await self._abandon(effect)
            case effects.PersistPaused():
                await self._durably(lambda: self._store.set_flag("paused", effect.paused))
            case effects.RunFinished():
                await self._durably(self._store.finish_run)
                for session in self.sessions:
                    session.send(RunChanged(reason="all rounds are committed", finished=True))
                log_event(log, logging.INFO, "run_finished", version=self._state.version)
            case effects.Halt():
                log_event(log, logging.ERROR, "halted", reason=effect.reason)
            case effects.Stop():
                self.stop()

    async def _durably(self, write: Callable[[], T]) -> T:
        """Do a write that everything after it depends on; wait while the medium refuses it."""
        while True:
            started = self._clock.monotonic()
            try:
                result = await asyncio.to_thread(write)
            except StorageFailed as error:
                self._in_trouble(str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), STORAGE_RETRY_SECONDS)
                if self._stopping.is_set():
                    raise
            else:
                self._out_of_trouble()
                self.metrics.journal_write(self._clock.monotonic() - started)
                return result

    def _insister(self) -> Callable[[Callable[[], BlobInfo]], BlobInfo]:
        """The same for a worker thread in the middle of a computation it should not repeat."""
        loop = asyncio.get_running_loop()

        def insist(write: Callable[[], BlobInfo]) -> BlobInfo:
            while True:
                try:
                    result = write()
                except StorageFailed as error:
                    loop.call_soon_threadsafe(self._in_trouble, str(error))
                    if self._stop_threads.wait(STORAGE_RETRY_SECONDS):
                        raise
                else:
                    loop.call_soon_threadsafe(self._out_of_trouble)
                    return result

        return insist

    def _in_trouble(self, detail: str) -> None:
        if detail != self.storage_trouble:
            log_event(log, logging.ERROR, "storage_failed", detail=detail)
        self.storage_trouble = detail
        self.metrics.storage_failure()
        self._changed.set()

    def _out_of_trouble(self) -> None:
        if self.storage_trouble:
            log_event(log, logging.INFO, "storage_recovered")
            self.storage_trouble = ""

    async def _assign(self, effect: effects.AssignIndexes) -> None:
        scaling = self.declaration.scaling
        given: dict[str, tuple[int, ScalingVector | None]] = {}
        for client, index in effect.indexes:
            vector = None
            if scaling is not None:
                vector = assign(
                    index,
                    dimension=scaling.dimension,
                    expected_clients=self.settings.expected_clients,
                    block=scaling.block,
                    allocation=scaling.allocation,
                    alpha=scaling.alpha,
                    seed=self.settings.seed,
                )
            given[client] = (index, vector)
        await self._durably(lambda: self._store.assign(given))
        self._scaling.update({client: vector for client, (_, vector) in given.items()})

    async def _open_attempt(self, effect: effects.OpenAttempt) -> None:
        now = self._clock.wall()
        record = AttemptRecord(
            round=effect.round,
            attempt=effect.attempt,
            base_version=effect.round - 1,
            base_digest=self._catalogue.newest.model_digest,
            cohort=effect.cohort,
            opened_at=now,
        )
        await self._durably(self._check_room)
        await self._durably(lambda: self._store.open_attempt(record))
        self._reset_sum()
        log_event(
            log,
            logging.INFO,
            "round_opened",
            round=effect.round,
            attempt=effect.attempt,
            cohort=len(effect.cohort),
        )

    def _check_room(self) -> None:
        free = self._blobs.free_bytes()
        if free < self.settings.min_free_bytes:
            raise StorageFailed(
                f"the state directory has {free >> 20} MiB left, no round opens below"
                f" {self.settings.min_free_bytes >> 20} MiB (limits.min_free_bytes): make room on its disk"
            )

    def _reset_sum(self) -> None:
        self._fold = Fold(self.plan)
        self._desk.forget_idle()
        self._tally = _Tally(opened=self._clock.monotonic(), opened_wall=self._clock.wall())

    def _send_train(self, effect: effects.SendTrain) -> None:
        session = self.sessions.worker(effect.worker)
        if session is None:
            return
        session.send(
            Train(
                round=effect.round,
                attempt=effect.attempt,
                base=self._catalogue.offer(),
                task_digest=self._task_digest(),
                run_seed=self.settings.seed,
                rounds=self._state.policy.rounds,
                values=self._values(),
                threads=self.settings.threads,
                clients=tuple((client, self._scaling.get(client)) for client in effect.clients),
                artefacts=self.run_record.artefacts,
                upload_within=effect.upload_within,
            )
        )

    def _values(self) -> dict[str, float]:
        return resolve(self.declaration.schedules, self._state.round, self._state.policy.rounds)

    def _task_digest(self) -> str:
        return json_digest(
            {
                "run": self.run_record.run_id,
                "round": self._state.round,
                "base": self._catalogue.newest.model_digest,
                "declaration": self.run_record.declaration_digest,
                "seed": self.settings.seed,
                "values": self._values(),
                "threads": self.settings.threads,
            }
        )

    async def _fold_upload(self, upload: Upload) -> None:
        started = self._clock.monotonic()
        envelope = upload.envelope
        if envelope.fold:
            await asyncio.to_thread(
                self._fold.add_fold, upload.body.view(), envelope.weight, len(envelope.clients)
            )
        else:
            await asyncio.to_thread(self._fold.add_update, upload.body.view(), envelope.weight)
        self.metrics.fold(self._clock.monotonic() - started)
        self._tally.training_seconds.extend(envelope.training_seconds.values())

    async def _commit(self, effect: effects.CloseAndCommit) -> None:
        closed = self._clock.monotonic()
        await self._durably(lambda: self._store.close_attempt(effect.round, effect.attempt, effect.accepted))
        newest = self._catalogue.newest
        opened = await asyncio.to_thread(self._fold.open)
        clients, weight = opened.clients, opened.weight
        # Its accumulator is twice the model: gone before the next version is made.
        self._fold = Fold(self.plan)
        made = await asyncio.to_thread(
            self._maker.make, opened, newest.full, newest.server_state, self._insister()
        )
        del opened
        seconds = self._clock.monotonic() - self._tally.opened
        statistics = mean_statistics(made.statistics, len(effect.accepted))
        statistics |= {
            "clients": float(clients),
            "weight": float(weight),
            "step_norm": made.step_norm,
            "seconds": seconds,
            "bytes_up": float(self._tally.bytes_up),
            "bytes_down": float(self._tally.bytes_down),
        }
        version = VersionRecord(
            number=effect.round,
            model_digest=made.model_digest,
            full=made.full,
            delta=made.delta,
            server_state=made.server_state,
            round=effect.round,
            attempt=effect.attempt,
            committed_at=self._clock.wall(),
            statistics=statistics,
        )
        del made
        await self._durably(lambda: self._store.commit(version, version.committed_at))
        self._catalogue.add(version)
        self._committed_rounds.update(dict.fromkeys(effect.accepted, effect.round))
        self._announce(version, frozenset(effect.accepted))
        self._evaluations.committed(version.number, last=version.number >= self._state.policy.rounds)
        slowest = max(self._tally.training_seconds, default=0.0)
        self.metrics.round_committed(
            version=version.number,
            seconds=seconds,
            commit_seconds=self._clock.monotonic() - closed,
            overhead_seconds=max(0.0, seconds - slowest),
            statistics=statistics,
        )
        log_event(
            log,
            logging.INFO,
            "round_committed",
            round=effect.round,
            attempt=effect.attempt,
            clients=len(effect.accepted),
            seconds=round(seconds, 3),
            digest=version.model_digest[:16],
        )
        await self._apply(events.VersionCommitted(now=self._clock.monotonic(), version=version.number))
        await self._durably(
            lambda: self._catalogue.retire(
                full_versions=self.settings.full_versions, deltas=self.settings.deltas
            )
        )

    def _announce(self, version: VersionRecord, included: frozenset[str]) -> None:
        offer = self._catalogue.offer()
        for session in self.sessions:
            session.send(
                Committed(
                    round=version.round,
                    version=offer,
                    included=tuple(sorted(included & session.clients)),
                )
            )

    async def _abandon(self, effect: effects.AbandonAttempt) -> None:
        now = self._clock.wall()
        await self._durably(
            lambda: self._store.abandon_attempt(effect.round, effect.attempt, effect.reason, now)
        )
        self._desk.forget_idle()
        self.metrics.round_abandoned(self._clock.monotonic() - self._tally.opened)
        for worker in effect.workers:
            session = self.sessions.worker(worker)
            if session is not None:
                session.send(Cancel(round=effect.round, attempt=effect.attempt, reason=effect.reason))
        log_event(
            log,
            logging.WARNING,
            "round_abandoned",
            round=effect.round,
            attempt=effect.attempt,
            reason=effect.reason,
        )

    # ---------------------------------------------------------------------------------------------- workers

    async def attach(
        self, claim: registry.Claim, protocol: tuple[int, int], capabilities: Capabilities
    ) -> Session:
        """Open a session; its outbox begins with the welcome.

        Raises:
            ClientFault: the worker may not attend, and why.
        """
        common = [version for version in PROTOCOL_VERSIONS if protocol[0] <= version <= protocol[1]]
        if not common:
            raise ClientFault(
                Reason.PROTOCOL_VERSION,
                f"this coordinator speaks protocol {PROTOCOL_VERSIONS.start} to {PROTOCOL_VERSIONS.stop - 1}, the worker"
                f" {protocol[0]} to {protocol[1]}; upgrade the older one",
            )

        async def admit() -> Session:
            registry.check_claim(self._state, claim)
            self.sessions.check_name(claim.worker, claim.instance)
            session = Session(
                token=secrets.token_hex(16),
                worker=claim.worker,
                instance=claim.instance,
                clients=frozenset(claim.clients),
                capabilities=capabilities,
                last_seen=self._clock.monotonic(),
            )
            self.sessions.add(session)
            session.send(self._welcome(session, claim, max(common)))
            log_event(log, logging.INFO, "worker_attached", worker=claim.worker, clients=len(claim.clients))
            await self._apply(
                events.WorkerAttached(
                    now=self._clock.monotonic(), worker=claim.worker, clients=tuple(sorted(claim.clients))
                )
            )
            if self._state.phase is Phase.FINISHED:
                session.send(RunChanged(reason="all rounds are committed", finished=True))
            return session

        return await self._in_loop(admit)

    def _welcome(self, session: Session, claim: registry.Claim, protocol: int) -> Welcome:
        fates = self._held_fates(claim)
        records = dict(claim.clients)
        for held, fate in zip(claim.held, fates, strict=True):
            if fate is registry.HeldFate.COMMITTED:
                records[held.client] = held.round
        other_run = claim.run_id != self.run_record.run_id
        reinitialise = {}
        for client, theirs in records.items():
            ours = self._committed_rounds.get(client, 0)
            if theirs != ours and not (other_run and ours == 0):
                reinitialise[client] = ours
                if self.declaration.persists_client_state:
                    self.metrics.client_reinitialised()
                    log_event(
                        log,
                        logging.WARNING,
                        "client_reinitialised",
                        client=client,
                        worker=session.worker,
                        worker_record=theirs,
                        coordinator_record=ours,
                    )
        return Welcome(
            protocol=protocol,
            session=session.token,
            run_id=self.run_record.run_id,
            declaration=self.run_record.declaration_blob,
            declaration_digest=self.run_record.declaration_digest,
            held_fates=fates,
            reinitialise=reinitialise,
            data_endpoints=self.settings.data_endpoints,
            heartbeat_seconds=self.settings.heartbeat_seconds,
            update_encoding=self.settings.update_encoding,
            delta_encoding=self.settings.delta_encoding,
            max_cohort=self.settings.max_cohort,
            max_client_weight=self.settings.max_client_weight,
            max_upload_bytes=max(self.plan.update_nbytes, self.plan.max_fold_nbytes),
            version=self._catalogue.offer(),
        )

    def _held_fates(self, claim: registry.Claim) -> tuple[registry.HeldFate, ...]:
        if claim.run_id != self.run_record.run_id:
            return tuple(registry.HeldFate.DISCARDED for _ in claim.held)
        if not claim.held:
            return ()
        included = {
            attempt.round: frozenset(attempt.accepted)
            for attempt in self._store.attempts()
            if attempt.outcome == "committed"
        }
        return tuple(
            registry.held_fate(
                held,
                current_base_digest=self._catalogue.newest.model_digest,
                digests=self._catalogue.digests,
                committed_rounds=self._committed_rounds,
                was_included=held.client in included.get(held.round, frozenset()),
            )
            for held in claim.held
        )

    def detach(self, session: Session) -> None:
        """The session's stream ended."""
        session.close()
        if self.sessions.remove(session):
            log_event(log, logging.INFO, "worker_detached", worker=session.worker)
            self._evaluations.lost(session.worker)
            self.post(events.WorkerDetached(now=self._clock.monotonic(), worker=session.worker))

    def heard(self, session: Session) -> None:
        """Something arrived from the worker."""
        session.last_seen = self._clock.monotonic()

    async def change_clients(self, session: Session, clients: Mapping[str, int]) -> None:
        """The worker hosts other clients now.

        Raises:
            ClientFault: as `attach`; the session keeps what it had.
        """

        async def change() -> None:
            claim = registry.Claim(worker=session.worker, instance=session.instance, clients=clients)
            registry.check_claim(self._state, claim)
            session.clients = frozenset(clients)
            await self._apply(
                events.WorkerAttached(
                    now=self._clock.monotonic(), worker=session.worker, clients=tuple(sorted(clients))
                )
            )

        await self._in_loop(change)

    def client_failed(
        self, session: Session, round_number: int, attempt: int, client: str, reason: str
    ) -> None:
        """A worker reports that a client (or, with an empty name, its whole task) failed."""
        if client and client not in session.clients:
            return
        self.metrics.client_failed(reason)
        self.post(
            events.ClientFailed(
                now=self._clock.monotonic(),
                worker=session.worker,
                round=round_number,
                attempt=attempt,
                clients=(client,) if client else (),
                reason=reason,
            )
        )

    async def evaluation_done(
        self, session: Session, version: int, values: Mapping[str, float], error: str
    ) -> None:
        """An evaluator answers."""

        async def record() -> None:
            now = self._clock.wall()
            kept = self._evaluations.done(session.worker, version, values, error)
            if kept is not None:
                await self._durably(lambda: self._store.record_evaluation(version, kept, now))
                self.metrics.evaluation(version, kept)
                log_event(log, logging.INFO, "evaluated", version=version, **_rounded(kept))
            elif error:
                log_event(log, logging.WARNING, "evaluation_failed", version=version, detail=error)
            self._evaluations.offer(self._state.policy.seed)
            self._stop_if_finished()

        await self._in_loop(record)

    # -------------------------------------------------------------------------------------------- data plane

    def session(self, token: str) -> Session:
        """The open session of a data call; raises ClientFault (no_session)."""
        return self.sessions.by_token(token)

    def open_blob(self, digest: str) -> BlobReader:
        """A blob a worker may read.

        Raises:
            ClientFault: reason unknown_blob.
        """
        if not self._catalogue.serves(digest):
            raise ClientFault(Reason.UNKNOWN_BLOB, "no message of this session names that blob")
        return self._blobs.open(digest)

    def sent(self, nbytes: int) -> None:
        """Bytes of blobs went down."""
        self._tally.bytes_down += nbytes
        self.metrics.transferred("down", nbytes)

    def received(self, nbytes: int) -> None:
        """Bytes of uploads came up."""
        self._tally.bytes_up += nbytes
        self.metrics.transferred("up", nbytes)

    def let_in(self, session: Session, envelope: Envelope) -> None:
        """Check an upload's envelope against the present attempt; raises ClientFault."""
        if self._stopping.is_set():
            raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
        addressing = Addressing(
            run_id=self.run_record.run_id,
            spec_digest=self.declaration.spec.digest,
            base_digest=self._catalogue.newest.model_digest,
            task_digest=self._task_digest(),
        )
        check_envelope(self._state, addressing, self.plan, session, envelope)

    def claim_upload(self, session: Session, envelope: Envelope) -> Upload | None:
        """Room for the upload, resumed where it broke off; None: hold."""
        return self._desk.claim(session.worker, envelope)

    def release_upload(self, upload: Upload) -> None:
        """The call broke off before the body was whole."""
        self._desk.release(upload)

    async def judge(self, session: Session, upload: Upload) -> Verdict:
        """Check a complete upload, offer it to the round, give its fate. Its room is given back."""
        try:
            try:
                await asyncio.to_thread(upload.check, self.plan)
            except ClientFault as fault:
                return self.reject(session, upload.envelope, fault)
            verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            self._next_upload += 1
            number = self._next_upload
            self._offered[number] = (upload, verdict)
            try:
                envelope = upload.envelope
                self.post(
                    events.UploadVerified(
                        now=self._clock.monotonic(),
                        upload=number,
                        worker=session.worker,
                        round=envelope.round,
                        attempt=envelope.attempt,
                        clients=tuple(sorted(envelope.clients)),
                    )
                )
                stopped = asyncio.ensure_future(self._stopping.wait())
                await asyncio.wait((verdict, stopped), return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if not verdict.done():
                    # `run` still answers everybody on its way out; do not outlive it.
                    verdict.set_result(verdict_of(ClientFault(Reason.DRAINING, "the coordinator stops")))
                answer = verdict.result()
            finally:
                del self._offered[number]
        finally:
            self._desk.finish(upload)
        self.metrics.upload(answer.fate, answer.reason)
        return answer

    def reject(self, session: Session, envelope: Envelope, fault: ClientFault) -> Verdict:
        """Count a refusal; a fault of the content is a failure of its clients."""
        verdict = verdict_of(fault)
        self.metrics.upload(verdict.fate, verdict.reason)
        log_event(
            log,
            logging.WARNING if verdict.fate is Fate.REJECTED else logging.INFO,
            "upload_refused",
            worker=session.worker,
            round=envelope.round,
            attempt=envelope.attempt,
            fate=verdict.fate.value,
            reason=verdict.reason,
            detail=verdict.detail,
        )
        if fault.reason in CONTENT:
            self.post(
                events.ClientFailed(
                    now=self._clock.monotonic(),
                    worker=session.worker,
                    round=envelope.round,
                    attempt=envelope.attempt,
                    clients=tuple(sorted(client for client in envelope.clients if client in session.clients)),
                    reason=fault.reason.value,
                )
            )
        return verdict

    # ---------------------------------------------------------------------------------------------- operator

    async def operate(self, make: Callable[[float], events.Event]) -> None:
        """Apply an operator's event and return when its effects are done."""

        async def apply() -> None:
            await self._apply(make(self._clock.monotonic()))

        await self._in_loop(apply)

    def wish(self, make: Callable[[float], events.Event]) -> None:
        """Note an operator's event; what follows from it is not waited for."""
        self.post(make(self._clock.monotonic()))

    def known(self, number: int) -> int:
        """`number`, if it is a version with blobs.

        Raises:
            ClientFault: reason not_found.
        """
        record = self._catalogue.record(number)
        if record is None or not self._blobs.exists(record.full.digest):
            raise ClientFault(Reason.NOT_FOUND, f"version {number} is not kept; see retention.full_versions")
        return number

    async def revoke(self, client: str) -> None:
        """Never sample a client again.

        Raises:
            ClientFault: reason not_found, if it is not registered.
        """

        async def apply() -> None:
            if client not in {record.client for record in self._store.clients()}:
                raise ClientFault(Reason.NOT_FOUND, f"no client is called {client}")
            await self._durably(lambda: self._store.revoke_client(client))
            await self._apply(events.ClientRevoked(now=self._clock.monotonic(), client=client))

        await self._in_loop(apply)

    def store_view(self) -> Store:
        """The journal, for reading."""
        return self._store

    @property
    def catalogue(self) -> Catalogue:
        """The versions."""
        return self._catalogue

    def status(self) -> StatusView:
        """The state for people."""
        state = self._state
        attempt = state.attempt
        cohort: dict[str, int] = {}
        if attempt is not None:
            failed = sum(1 for client in attempt.failures if attempt.wants(client))
            cohort = {
                "invited": len(attempt.cohort),
                "accepted": len(attempt.accepted),
                "failed": failed,
            }
        version, values = self._evaluations.newest
        newest = self._catalogue.newest
        return StatusView(
            run_id=self.run_record.run_id,
            method=self.declaration.method,
            mode=state.policy.mode.value,
            phase=state.phase.value,
            waiting_for=self.storage_trouble or state.waiting_for()[1],
            version=self._catalogue.offer(),
            round=attempt.round if attempt else 0,
            attempt=attempt.number if attempt else 0,
            rounds=state.policy.rounds,
            cohort=cohort,
            workers=self.sessions.views(self._clock.monotonic()),
            registered_clients=len(state.clients),
            connected_clients=len(state.connected()),
            evaluation=values,
            evaluated_version=version,
            statistics=newest.statistics,
            uptime_seconds=self._clock.monotonic() - self._started,
        )

    def _publish(self) -> None:
        """Bring gauges up to date and wake the watchers."""
        state = self._state
        attempt = state.attempt
        self.metrics.population(
            workers=len(self.sessions), connected=len(state.connected()), registered=len(state.clients)
        )
        self.metrics.phase(state.phase)
        self.metrics.cohort(
            invited=len(attempt.cohort) if attempt else 0,
            accepted=len(attempt.accepted) if attempt else 0,
            failed=len(attempt.failures) if attempt else 0,
        )
        self._changed.set()
        self._changed = asyncio.Event()


def _rounded(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in sorted(values.items())[:12]}
