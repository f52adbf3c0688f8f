"""The only loop: events in, `step`, effects out, in order, each finished before the next event is looked at.

Everything that touches the run's state goes through `Driver._inbox`, so nothing here needs a lock. What must be
durable is written before anything is sent that depends on it; while the medium fails, the loop stands still
and says so, and nothing is lost: the sum stays in memory, workers keep what they finished.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from coordinator.config.run_settings import Settings
from coordinator.core import effects, events
from coordinator.core.effects import Effect
from coordinator.core.round import next_wakeup, step
from coordinator.core.state import Phase, RunState
from coordinator.errors import ClientFault, HookFailed, MethodRefused, Reason, StorageFailed
from coordinator.evaluation.on_clients import ClientEvaluations
from coordinator.evaluation.records import EvaluationRecords
from coordinator.evaluation.schedule import Evaluations
from coordinator.identity.revocations import RevocationList
from coordinator.inspection.provenance import Provenance, provenance
from coordinator.inspection.views import StatusView
from coordinator.method_host.hook import Hooked, HookRunner
from coordinator.ports.blobs import BlobReader, Blobs
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.method_host import MethodHost
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.ports.staging import Staging
from coordinator.rounds.commit import Committer, Tally
from coordinator.rounds.tasks import Tasks
from coordinator.rounds.worker_reports import Attendance
from coordinator.runtime.durable_writes import Durability
from coordinator.runtime.mailbox import Inbox
from coordinator.secure_aggregation.rounds import SecureRounds
from coordinator.secure_aggregation.view import SecureView
from coordinator.telemetry.client_history import Chronicle, Note
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.recent import Observations
from coordinator.telemetry.tracing import NoTracing, Tracing
from coordinator.uploads.envelope_checks import Addressing, check_envelope
from coordinator.uploads.in_flight import Upload, UploadDesk
from coordinator.uploads.verification import Intake
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.next_version import VersionMaker
from coordinator.versions.privacy import Account, Privacy
from coordinator.versions.quality import QualityRounds, measured, stored_frequencies
from coordinator.versions.quality import newest as newest_quality
from coordinator.workers.ownership import Membership
from coordinator.workers.sessions import Session, SessionTable
from coordinator.workers.welcome import Terms
from ssd.daemon.logs import event as log_event
from ssd.trust.participants import Registry
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold, FoldPlan, OpenedFold
from ssd_wire.messages import Cancel, Committed, Drain, Evaluate, RunChanged
from ssd_wire.uploads import Envelope, Verdict

T = TypeVar("T")
log = logging.getLogger(__name__)

RESTART_RECONNECT_SECONDS = 1.0


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
        store: Journal,
        blobs: Blobs,
        staging: Staging,
        host: MethodHost,
        state_dir: Path,
        clock: Clock,
        metrics: CoordinatorMetrics,
        revocations: RevocationList,
        participants: Callable[[], Registry | None] = lambda: None,
        entropy: Callable[[int], bytes] = os.urandom,
        privacy: Privacy | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.run_record = run
        self.tracing: Tracing = tracing or NoTracing()
        self.revocations = revocations
        self.declaration = declaration
        self.quality = QualityRounds(
            plan,
            Encoding(settings.update_encoding),
            settings.evaluation_every,
            lambda: stored_frequencies(run.artefacts, blobs),
        )
        self.settings = settings
        self.metrics = metrics
        self.staging = staging
        self.sessions = SessionTable()
        self.observations = Observations()
        self._state = state
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._desk = UploadDesk(staging, settings.staging_bytes_per_worker)
        self._inbox = Inbox()
        self._durability = Durability(clock, metrics)
        self._catalogue = Catalogue(run, store, blobs)
        self._tasks = Tasks(
            run=run,
            declaration=declaration,
            seed=settings.seed,
            threads=settings.threads,
            expected_clients=settings.expected_clients,
            scaling={record.client: record.scaling for record in store.clients()},
            quality=self.quality,
        )
        if (privacy is None) != (settings.privacy is None):
            raise ValueError("the workers are told of noise that nobody accounts for, or the other way round")
        self._privacy = privacy
        self._privacy_told: tuple[tuple[int, int, int | None], Account] | None = None
        self._committed_rounds = {record.client: record.last_committed_round for record in store.clients()}
        self._evaluations = Evaluations(
            EvaluationRecords(store, self._durability, clock, metrics),
            self._catalogue,
            self.sessions,
            settings.evaluation_every,
            # What clients measure on their own images would leave them unmasked, or without noise.
            self._client_evaluations()
            if declaration.client_evaluation and privacy is None and settings.secure is None
            else None,
        )
        self._committer = Committer(
            store=store,
            catalogue=self._catalogue,
            maker=maker,
            durability=self._durability,
            clock=clock,
            quality=self.quality,
        )
        self._measured = newest_quality(store.versions())
        """The quality statistics of the last round that measured."""
        self._hook: HookRunner | None = None
        if declaration.server_hook:
            self._hook = HookRunner(
                run=run,
                declaration=declaration,
                plan=plan,
                seed=settings.seed,
                host=host,
                blobs=blobs,
                durability=self._durability,
                state_dir=state_dir,
            )
        self._secure: SecureRounds | None = None
        if settings.secure is not None:
            self._secure = SecureRounds(
                settings=settings.secure,
                quality=self.quality,
                registry=participants,
                apply=self._apply,
                later=self._inbox.put,
                store=store,
                durability=self._durability,
                sessions=self.sessions,
                clock=clock,
                metrics=metrics,
                entropy=entropy,
                state_dir=state_dir,
                transcripts=settings.transcripts,
                entered=self.tracing.secure_phase,
            )
        self._unhooked: OpenedFold | None = None
        """The reduced updates of a journaled set whose server hook failed."""
        if state.attempt is not None:
            self._tasks.opened(state.attempt.round, store.attempts(1)[0].cohort)
        self._accepted_sets = {
            each.round: frozenset(each.accepted) for each in store.attempts() if each.outcome == "committed"
        }
        terms = Terms(
            run=run,
            declaration=declaration,
            plan=self.quality.largest,
            update_encoding=settings.update_encoding,
            delta_encoding=settings.delta_encoding,
            heartbeat_seconds=settings.heartbeat_seconds,
            data_endpoints=settings.data_endpoints,
            max_upload_bytes=self.max_upload_bytes,
            secure=settings.secure,
            privacy=settings.privacy,
        )
        self.attendance = Attendance(
            terms=terms,
            state=lambda: self._state,
            apply=self._apply,
            settled=self._stop_if_finished,
            accepted_sets=self._accepted_sets,
            committed_rounds=self._committed_rounds,
            sessions=self.sessions,
            inbox=self._inbox,
            catalogue=self._catalogue,
            evaluations=self._evaluations,
            clock=clock,
            metrics=metrics,
            revocations=revocations,
            observations=self.observations,
            secure=self._secure,
        )
        self.membership = Membership(
            state=lambda: self._state,
            apply=self._apply,
            sessions=self.sessions,
            inbox=self._inbox,
            store=store,
            durability=self._durability,
            clock=clock,
            revocations=revocations,
        )
        self._fold = self._empty_fold()
        self._chronicle = Chronicle()
        if state.attempt is not None:
            newest = store.attempts(1)[0]
            self._chronicle.begin(state.attempt.round, state.attempt.number, newest.cohort)
            self.tracing.resumed(state, newest.opened_at)
        self._intake = Intake(
            desk=self._desk,
            plan=self.quality.plan,
            inbox=self._inbox,
            post=self.post,
            admit=self.membership.check,
            told=self._note_upload,
            clock=clock,
            metrics=metrics,
            observations=self.observations,
        )
        self._tally = Tally(opened=self._clock.monotonic())
        self._started = clock.monotonic()
        self._changed = asyncio.Event()
        self._ready = False

    def _client_evaluations(self) -> ClientEvaluations:
        return ClientEvaluations(
            sessions=self.sessions,
            order=self._order_evaluation,
            state=lambda: self._state,
            committed_rounds=self._committed_rounds,
            needs_images=self.declaration.needs_images,
            wait_seconds=self.settings.evaluation_wait_seconds,
            now=self._clock.monotonic,
        )

    def _order_evaluation(self, version: int, clients: Sequence[str]) -> Evaluate:
        record = self._catalogue.record(version)
        assert record is not None  # only versions that exist are measured
        return self._tasks.evaluate(self._catalogue.offer(version), record.artefacts, clients)

    # ------------------------------------------------------------------------------------------- life cycle

    @property
    def ready(self) -> bool:
        """Whether the loop runs, the medium takes writes and no drain is under way."""
        return self._ready and not self._durability.trouble and not self._inbox.stopping

    @property
    def plan(self) -> FoldPlan:
        """The fold plan of the present round."""
        return self.quality.plan(self._state.round)

    @property
    def max_upload_bytes(self) -> int:
        """The longest body an upload of this run can have."""
        largest = self.quality.largest
        if self._secure is not None:
            return self._secure.plan(largest).nbytes
        return max(largest.update_nbytes, largest.max_fold_nbytes)

    def _empty_fold(self) -> Fold | None:
        return Fold(self.plan) if self._secure is None else None

    @property
    def state(self) -> RunState:
        """The run's present state."""
        return self._state

    @property
    def storage_trouble(self) -> str:
        """What the medium last said; empty while it takes writes."""
        return self._durability.trouble

    async def run(self) -> None:
        """Drive rounds until `stop` or the run's own end. Attempts under way stay journaled."""
        self._ready = True
        self._evaluations.begin(self._state.version, last=self._state.version >= self._state.policy.rounds)
        if self._secure is not None:
            await self._secure.recover()
        if self._secure is not None and self._state.phase is Phase.UNMASKING:
            attempt = self._state.attempt
            assert attempt is not None
            await self._secure.resume(attempt.round, attempt.number, tuple(sorted(attempt.accepted)))
        await self._apply(events.Tick(now=self._clock.monotonic()))
        try:
            while not self._inbox.stopping:
                command = await self._inbox.next(self._seconds_to_next_wakeup())
                if command is not None:
                    await command()
                if self._seconds_to_next_wakeup() <= 0:
                    await self._apply(events.Tick(now=self._clock.monotonic()))
                self.attendance.cut_off_silent()
                await self._evaluations.settle()
                self._stop_if_finished()
                self._publish()
        finally:
            self._ready = False
            self.stop()
            self._say_goodbye()

    def stop(self) -> None:
        """Leave the loop after the event in hand. Idempotent."""
        self._inbox.stop()
        self._durability.stop()

    async def changed(self) -> None:
        """Wait until something changed since the call."""
        await self._changed.wait()

    def _seconds_to_next_wakeup(self) -> float:
        times = [next_wakeup(self._state), None if self._secure is None else self._secure.wakeup]
        wakeup = min((time for time in times if time is not None), default=None)
        beat = self.settings.heartbeat_seconds
        if wakeup is None:
            return beat
        return min(beat, max(0.0, wakeup - self._clock.monotonic()))

    def _say_goodbye(self) -> None:
        """Release everybody who waits: attached workers and uploads without a verdict."""
        for session in self.sessions:
            session.send(
                Drain(reason="the coordinator stops", reconnect_after_seconds=RESTART_RECONNECT_SECONDS)
            )
            session.close()
        self._intake.dismiss()

    def post(self, event: events.Event) -> None:
        """Queue an event."""

        async def run() -> None:
            await self._apply(event)

        self._inbox.put(run)

    async def _apply(self, event: events.Event) -> None:
        before = self._state
        self._state, todo = step(before, event)
        self.tracing.stepped(before, event, self._state, todo)
        self._chronicle.heard(event, self._clock.wall())
        self.metrics.phase(self._state.phase)
        for effect in todo:
            await self._execute(effect)
            self._chronicle.done(effect, self._clock.wall())
        if self._secure is not None:
            await self._secure.settle(self._state)
        if self._state.phase is not before.phase:
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
                await self._durability.write(lambda: self._store.register_clients(effect.clients, now))
            case effects.BindClients():
                await self._durability.write(
                    lambda: self._store.bind_clients(effect.worker, effect.clients, now)
                )
            case effects.AssignIndexes():
                await self._assign(effect)
            case effects.OpenAttempt():
                await self._open_attempt(effect)
            case effects.SendTrain():
                self._send_train(effect)
            case effects.FoldUpload():
                upload = self._intake.upload(effect.upload)
                if upload is not None:
                    await self._fold_upload(upload)
            case effects.AnswerUpload():
                self._intake.answer(effect)
            case effects.OpenSum():
                assert self._secure is not None
                await self._secure.open_sum(effect)
            case effects.CloseAndCommit():
                await self._commit(effect)
            case effects.AbandonAttempt():
                await self._abandon(effect)
            case effects.PersistPaused():
                await self._durability.write(lambda: self._store.set_flag("paused", effect.paused))
            case effects.RunFinished():
                await self._durability.write(self._store.finish_run)
                for session in self.sessions:
                    session.send(RunChanged(reason="all rounds are committed", finished=True))
                log_event(log, logging.INFO, "run_finished", version=self._state.version)
            case effects.Halt():
                log_event(log, logging.ERROR, "halted", reason=effect.reason)
            case effects.Stop():
                self.stop()

    async def _assign(self, effect: effects.AssignIndexes) -> None:
        given = self._tasks.vectors(effect.indexes)
        await self._durability.write(lambda: self._store.assign(given))
        self._tasks.assigned(given)

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
        await self._durability.write(self._check_room)
        await self._durability.write(lambda: self._store.open_attempt(record))
        self._tasks.opened(effect.round, effect.cohort)
        self.observations.opened(effect.round, effect.attempt)
        await self._reset_sum()
        if self._secure is not None:
            newest, rounds = self._catalogue.newest, self._state.policy.rounds
            digest = self._tasks.digest(effect.round, newest.model_digest, newest.artefacts, rounds)
            self._secure.begin(effect, newest.model_digest, digest)
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

    async def _reset_sum(self) -> None:
        self._fold = self._empty_fold()
        self._unhooked = None
        if self._hook is not None:
            await self._hook.reset()
        self._desk.forget()
        self._tally = Tally(opened=self._clock.monotonic())

    def _send_train(self, effect: effects.SendTrain) -> None:
        session = self.sessions.worker(effect.worker)
        if session is not None:
            made = self._catalogue.newest.artefacts
            session.send(self._tasks.train(effect, self._catalogue.offer(), made, self._state.policy.rounds))

    async def _fold_upload(self, upload: Upload) -> None:
        envelope = upload.envelope
        if self._hook is not None and not envelope.fold and not envelope.masked:
            (client,) = envelope.names
            own = upload.body.view()[: self.quality.plain.update_nbytes]
            await self._hook.collect(client, envelope.weight, own)
        started = self._clock.monotonic()
        if self._secure is not None or self._fold is None:
            assert self._secure is not None
            await self._secure.fold(upload)
        elif envelope.fold:
            await asyncio.to_thread(
                self._fold.add_fold, upload.body.view(), envelope.weight, len(envelope.clients)
            )
        else:
            await asyncio.to_thread(self._fold.add_update, upload.body.view(), envelope.weight)
        self.metrics.fold(self._clock.monotonic() - started)
        self._tally.training_seconds.extend(each.training_seconds for each in envelope.clients)

    async def _commit(self, effect: effects.CloseAndCommit) -> None:
        closed = self._clock.monotonic()
        await self._committer.journal(effect.round, effect.attempt, effect.accepted)
        self._desk.forget()
        opened = self._unhooked
        if opened is None and self._secure is not None:
            opened = self._secure.take()
        elif opened is None:
            assert self._fold is not None
            with self.tracing.part("open_sum"):
                if self._privacy is not None:
                    await asyncio.to_thread(self._privacy.add_noise, self._fold)
                opened = await asyncio.to_thread(self._fold.open)
        # The accumulator is twice the model: gone before the next version is made.
        self._fold = self._empty_fold()
        hooked: Hooked | None = None
        if self._hook is not None:
            self._unhooked = opened
            with self.tracing.part("server_hook"):
                hooked = await self._run_hook(self._hook, opened)
            if hooked is None:
                return
            self._unhooked = None
            if hooked.delta is not None:
                opened, hooked = replace(opened, delta=hooked.delta), replace(hooked, delta=None)
        spent: dict[str, float] = {}
        if self._privacy is not None:
            honest = 1 if self._secure is None else (self._secure.opened_honest(self._state) or 0)
            spent = await asyncio.to_thread(
                self._privacy.spent, effect.round, honest, self._catalogue.newest.statistics
            )
        with self.tracing.part("make_version"):
            version = await self._committer.commit(
                effect.round,
                effect.attempt,
                opened,
                hooked,
                self._tally,
                spent,
                before=None if self._secure is None else self._secure.committing,
            )
        del opened, hooked
        self._committed_rounds.update(dict.fromkeys(effect.accepted, effect.round))
        self._accepted_sets[effect.round] = frozenset(effect.accepted)
        self._announce(version, frozenset(effect.accepted))
        if self._secure is not None:
            await self._secure.committed()
        self._evaluations.committed(version.number, last=version.number >= self._state.policy.rounds)
        self._measured = measured(version.statistics) or self._measured
        seconds = version.statistics["seconds"]
        self.metrics.round_committed(
            version=version.number,
            seconds=seconds,
            commit_seconds=self._clock.monotonic() - closed,
            overhead_seconds=max(0.0, seconds - self._tally.slowest),
            statistics=version.statistics,
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
        # Before the next round opens: what goes now may be the room it needs.
        if self._hook is not None:
            await self._hook.reset()
        await self._durability.write(self._retire)
        await self._write_chronicle()
        await self._apply(events.VersionCommitted(now=self._clock.monotonic(), version=version.number))

    async def _run_hook(self, hook: HookRunner, opened: OpenedFold) -> Hooked | None:
        """What the server hook made; None: it failed and the run is halted, or the daemon stops."""
        newest, rounds = self._catalogue.newest, self._state.policy.rounds
        values = self._tasks.values(newest.number + 1, rounds)
        running = asyncio.ensure_future(hook.run(opened, newest, rounds=rounds, values=values))
        try:
            await self._inbox.or_stopped(running)
        finally:
            if not running.done():
                # The set is journaled: the next start asks the workers for its updates again.
                running.cancel()
                await asyncio.wait((running,))
        if running.cancelled():
            return None
        try:
            return running.result()
        except (HookFailed, MethodRefused) as error:
            await self._apply(events.CommitFailed(now=self._clock.monotonic(), reason=str(error)))
            return None

    def _note_upload(self, worker: str, envelope: Envelope, verdict: Verdict) -> None:
        note = Note(self._clock.wall(), verdict.fate.value, verdict.reason, worker)
        self._chronicle.upload(envelope.round, envelope.attempt, envelope.names, note)

    async def _write_chronicle(self) -> None:
        """For `ssd-coordinator explain`; nothing depends on it, so it comes after the outcome is durable."""
        for (round_number, attempt), told in self._chronicle.unwritten().items():
            keep = partial(self._store.keep_chronicle, round_number, attempt, told)
            await self._durability.write(keep)

    def _retire(self) -> None:
        self._catalogue.retire(
            full_versions=self.settings.full_versions,
            deltas=self.settings.deltas,
            pinned=self._evaluations.wanted,
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
        await self._durability.write(
            lambda: self._store.abandon_attempt(effect.round, effect.attempt, effect.reason, now)
        )
        await self._write_chronicle()
        self._desk.forget()
        if self._secure is not None:
            await self._secure.abandoned(effect.reason)
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

    # -------------------------------------------------------------------------------------------- data plane

    def session(self, token: str) -> Session:
        """The open session of a data call; raises ClientFault (no_session)."""
        return self.sessions.by_token(token)

    def open_blob(self, digest: str, session: Session | None = None) -> BlobReader:
        """A blob a worker may read: of versions, tasks and the declaration, or a message for this session's worker.

        Raises:
            ClientFault: reason unknown_blob.
        """
        if self._secure is not None and session is not None:
            message = self._secure.open_blob(digest, session.worker)
            if message is not None:
                return message
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
        if self._inbox.stopping:
            raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
        # Of the state's version, not of the newest: for a moment a commit is durable that the state has not seen.
        base = self._catalogue.record(self._state.version)
        assert base is not None
        addressing = Addressing(
            run_id=self.run_record.run_id,
            spec_digest=self.declaration.spec.digest,
            base_digest=base.model_digest,
            task_digest=self._tasks.digest(
                self._state.round, base.model_digest, base.artefacts, self._state.policy.rounds
            ),
        )
        masked = None if self._secure is None else self._secure.plan(self.plan).nbytes
        check_envelope(self._state, addressing, self.plan, session, envelope, masked)
        if self._secure is not None:
            self._secure.check(session, envelope)

    def claim_upload(self, session: Session, envelope: Envelope) -> Upload | None:
        """Room for the upload, resumed where it broke off; None: hold."""
        return self._desk.claim(session.worker, envelope)

    def release_upload(self, upload: Upload) -> None:
        """The call broke off before the body was whole."""
        self._desk.release(upload)

    async def judge(self, session: Session, upload: Upload) -> Verdict:
        """The fate of a complete upload; its room is given back."""
        return await self._intake.judge(session, upload)

    def reject(self, session: Session, envelope: Envelope, fault: ClientFault) -> Verdict:
        """Count the refusal of an upload."""
        return self._intake.reject(session, envelope, fault)

    # ---------------------------------------------------------------------------------------------- operator

    async def operate(self, make: Callable[[float], events.Event]) -> None:
        """Apply an operator's event and return when its effects are done."""

        async def apply() -> None:
            await self._apply(make(self._clock.monotonic()))

        await self._inbox.call(apply)

    def wish(self, make: Callable[[float], events.Event]) -> None:
        """Note an operator's event; what follows from it is not waited for."""
        self.post(make(self._clock.monotonic()))

    def known(self, number: int) -> int:
        """`number`, if it is a version with blobs.

        Raises:
            ClientFault: reason not_found.
        """
        if not self.holds(number):
            raise ClientFault(Reason.NOT_FOUND, f"version {number} is not kept; see retention.full_versions")
        return number

    def holds(self, number: int) -> bool:
        """Whether the whole model of a version is still here."""
        record = self._catalogue.record(number)
        return record is not None and self._blobs.exists(record.full.digest)

    def store_view(self) -> Journal:
        """The journal, for reading."""
        return self._store

    @property
    def committed_rounds(self) -> Mapping[str, int]:
        """Client -> the last committed round that included it."""
        return self._committed_rounds

    @property
    def evaluations(self) -> Mapping[int, Mapping[str, float]]:
        """Version -> what was measured of it."""
        return self._evaluations.by_version

    @property
    def secure_view(self) -> SecureView | None:
        """Where secure aggregation stands; None: the run has none."""
        return None if self._secure is None else self._secure.view()

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
        account = Account() if self._privacy is None else self._account(self._privacy)
        return StatusView(
            run_id=self.run_record.run_id,
            method=self.declaration.method,
            mode=state.policy.mode.value,
            phase=state.phase.value,
            waiting_for=self._waiting_for(),
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
            statistics={**self._measured, **account.beside(newest.statistics)},
            uptime_seconds=self._clock.monotonic() - self._started,
            privacy=account.said,
        )

    async def provenance(self, number: int) -> Provenance:
        """How version `number`, which must exist, came to be."""
        record = self._catalogue.record(number)
        assert record is not None
        rounds, privacy = self._state.policy.rounds, self._privacy
        said = "" if privacy is None else privacy.describe(number, rounds, record.statistics)
        if privacy is not None and number == self._catalogue.newest.number:
            said = self._account(privacy).said
        return await asyncio.to_thread(
            provenance,
            self._store,
            number,
            mode=self._state.policy.mode.value,
            rounds=rounds,
            registered_clients=len(self._state.clients),
            secure_aggregation="off" if self._secure is None else self._secure.level.value,
            privacy=said,
        )

    def _account(self, privacy: Privacy) -> Account:
        """What all sums opened so far cost, one that is in no version included."""
        newest, rounds = self._catalogue.newest, self._state.policy.rounds
        beside = None if self._secure is None else self._secure.opened_honest(self._state)
        key = (newest.number, rounds, beside)
        if self._privacy_told is None or self._privacy_told[0] != key:
            self._privacy_told = (key, privacy.account(newest.number, rounds, newest.statistics, beside))
        return self._privacy_told[1]

    def _waiting_for(self) -> str:
        said = self._durability.trouble or self._state.waiting_for()[1]
        return said or ("" if self._secure is None else self._secure.waiting_for())

    def _publish(self) -> None:
        """Bring gauges up to date and wake the watchers."""
        state = self._state
        attempt = state.attempt
        self.metrics.population(
            workers=len(self.sessions), connected=len(state.connected()), registered=len(state.clients)
        )
        self.metrics.cohort(
            invited=len(attempt.cohort) if attempt else 0,
            accepted=len(attempt.accepted) if attempt else 0,
            failed=len(attempt.failures) if attempt else 0,
        )
        if self._privacy is not None:
            self.metrics.privacy(self._account(self._privacy).statistics)
        self._changed.set()
        self._changed = asyncio.Event()
