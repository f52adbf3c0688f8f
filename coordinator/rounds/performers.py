"""What the effects of the core do to the registry, to the attempt under way and to the run as a whole."""

from __future__ import annotations

import logging

from coordinator.core import effects
from coordinator.errors import StorageFailed
from coordinator.ports.blobs import Blobs
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.records import AttemptRecord
from coordinator.ports.run import Run
from coordinator.rounds.commit import Commit, write_history
from coordinator.rounds.machine import Performers
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.runtime.mailbox import Mailbox
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.client_history import ClientHistory
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.recent import RecentStatus
from coordinator.telemetry.round_cost import RoundCost
from coordinator.uploads.in_flight import UploadsInFlight
from coordinator.uploads.verification import UploadVerification
from coordinator.versions.catalogue import Catalogue
from coordinator.workers.sessions import SessionTable
from coordinator.workers.tasks import Tasks
from ssd.daemon.logs import event as log_event
from ssd_wire.messages import Cancel, RunChanged

log = logging.getLogger(__name__)


class RunEffects:
    """Effects on the registry of clients and on the run as a whole."""

    def __init__(
        self,
        *,
        run: Run,
        journal: Journal,
        durability: DurableWrites,
        mailbox: Mailbox,
        sessions: SessionTable,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self._run = run
        self._journal = journal
        self._durability = durability
        self._mailbox = mailbox
        self._sessions = sessions
        self._tasks = tasks
        self._clock = clock

    def table(self) -> Performers:
        """Effect -> what performs it."""
        return {
            effects.RegisterClients: self._register,
            effects.BindClients: self._bind,
            effects.AssignIndexes: self._assign,
            effects.PersistPaused: self._persist_paused,
            effects.RunFinished: self._finish,
            effects.Halt: self._halt,
            effects.Stop: self._stop,
        }

    async def _register(self, effect: effects.RegisterClients) -> None:
        now = self._clock.wall()
        await self._durability.write(lambda: self._journal.register_clients(effect.clients, now))

    async def _bind(self, effect: effects.BindClients) -> None:
        now = self._clock.wall()
        await self._durability.write(lambda: self._journal.bind_clients(effect.worker, effect.clients, now))

    async def _assign(self, effect: effects.AssignIndexes) -> None:
        given = self._tasks.vectors(effect.indexes)
        await self._durability.write(lambda: self._journal.assign(given))
        self._tasks.assigned(given)

    async def _persist_paused(self, effect: effects.PersistPaused) -> None:
        await self._durability.write(lambda: self._journal.set_flag("paused", effect.paused))

    async def _finish(self, effect: effects.RunFinished) -> None:
        await self._durability.write(self._journal.finish_run)
        for session in self._sessions:
            session.send(RunChanged(reason="all rounds are committed", finished=True))
        log_event(log, logging.INFO, "run_finished", version=self._run.state.version)

    async def _halt(self, effect: effects.Halt) -> None:
        log_event(log, logging.ERROR, "halted", reason=effect.reason)

    async def _stop(self, effect: effects.Stop) -> None:
        self._mailbox.stop()
        self._durability.stop()


class OpenAttempts:
    """Effects that open an attempt and send its tasks.

    Args:
        run: for the number of rounds.
        journal: the journal.
        blobs: for the room that is left.
        min_free_bytes: no round opens below it.
        durability: for the journal's writes.
        commit: forgets what an attempt before left, and begins to collect for the hook.
        round_sum: starts at zero.
        tasks: makes the messages.
        catalogue: the base version.
        sessions: whom the tasks go to.
        recent: what people see of the attempt.
        clock: for the record's time.
    """

    def __init__(
        self,
        *,
        run: Run,
        journal: Journal,
        blobs: Blobs,
        min_free_bytes: int,
        durability: DurableWrites,
        commit: Commit,
        round_sum: RoundSum,
        tasks: Tasks,
        catalogue: Catalogue,
        sessions: SessionTable,
        recent: RecentStatus,
        clock: Clock,
    ) -> None:
        self._run = run
        self._journal = journal
        self._blobs = blobs
        self._min_free_bytes = min_free_bytes
        self._durability = durability
        self._commit = commit
        self._sum = round_sum
        self._tasks = tasks
        self._catalogue = catalogue
        self._sessions = sessions
        self._recent = recent
        self._clock = clock

    def table(self) -> Performers:
        """Effect -> what performs it."""
        return {effects.OpenAttempt: self._open, effects.SendTrain: self._send_train}

    async def _open(self, effect: effects.OpenAttempt) -> None:
        newest = self._catalogue.newest
        record = AttemptRecord(
            round=effect.round,
            attempt=effect.attempt,
            base_version=effect.round - 1,
            base_digest=newest.model_digest,
            cohort=effect.cohort,
            opened_at=self._clock.wall(),
        )
        await self._durability.write(self._check_room)
        await self._durability.write(lambda: self._journal.open_attempt(record))
        self._tasks.opened(effect.round, effect.cohort)
        self._recent.opened(effect.round, effect.attempt)
        await self._commit.begin()
        rounds = self._run.state.policy.rounds
        digest = self._tasks.digest(effect.round, newest.model_digest, newest.artefacts, rounds)
        self._sum.begin(effect, newest.model_digest, digest)
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
        if free < self._min_free_bytes:
            raise StorageFailed(
                f"the state directory has {free >> 20} MiB left, no round opens below"
                f" {self._min_free_bytes >> 20} MiB (limits.min_free_bytes): make room on its disk"
            )

    async def _send_train(self, effect: effects.SendTrain) -> None:
        session = self._sessions.worker(effect.worker)
        if session is not None:
            offer, made = self._catalogue.offer(), self._catalogue.newest.artefacts
            session.send(self._tasks.train(effect, offer, made, self._run.state.policy.rounds))


class AttemptEffects:
    """Effects on uploads, on the sum, and on an attempt that comes to nothing.

    Args:
        uploads: those under verification, which wait for a verdict.
        in_flight: those in flight.
        commit: collects for the server hook.
        round_sum: takes verified updates.
        journal: the journal.
        durability: for its writes.
        sessions: who is told that an attempt is cancelled.
        history: of the attempt's clients.
        recent: what people see of attempts that come to nothing.
        cost: of the attempt.
        clock: for durations and the record's time.
        metrics: of folds and abandoned rounds.
    """

    def __init__(
        self,
        *,
        uploads: UploadVerification,
        in_flight: UploadsInFlight,
        commit: Commit,
        round_sum: RoundSum,
        journal: Journal,
        durability: DurableWrites,
        sessions: SessionTable,
        history: ClientHistory,
        recent: RecentStatus,
        cost: RoundCost,
        clock: Clock,
        metrics: CoordinatorMetrics,
    ) -> None:
        self._uploads = uploads
        self._in_flight = in_flight
        self._commit = commit
        self._sum = round_sum
        self._journal = journal
        self._durability = durability
        self._sessions = sessions
        self._history = history
        self._recent = recent
        self._cost = cost
        self._clock = clock
        self._metrics = metrics

    def table(self) -> Performers:
        """Effect -> what performs it."""
        return {
            effects.FoldUpload: self._fold,
            effects.AnswerUpload: self._answer,
            effects.OpenSum: self._sum.close,
            effects.AbandonAttempt: self._abandon,
        }

    async def _fold(self, effect: effects.FoldUpload) -> None:
        upload = self._uploads.upload(effect.upload)
        if upload is None:
            return
        envelope, body = upload.envelope, upload.body.view()
        await self._commit.collect(envelope, body)
        started = self._clock.monotonic()
        await self._sum.add(upload.worker, envelope, body)
        self._metrics.fold(self._clock.monotonic() - started)
        self._cost.trained(each.training_seconds for each in envelope.clients)

    async def _answer(self, effect: effects.AnswerUpload) -> None:
        self._uploads.answer(effect)

    async def _abandon(self, effect: effects.AbandonAttempt) -> None:
        now = self._clock.wall()
        await self._durability.write(
            lambda: self._journal.abandon_attempt(effect.round, effect.attempt, effect.reason, now)
        )
        await write_history(self._history, self._journal, self._durability)
        self._in_flight.forget()
        await self._sum.abandoned(effect.reason)
        self._recent.abandoned(effect.round, effect.reason)
        self._metrics.round_abandoned(self._clock.monotonic() - self._cost.opened)
        for worker in effect.workers:
            session = self._sessions.worker(worker)
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
