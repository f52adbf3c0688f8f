"""The only loop: events in, one `step`, effects out, in order.

Whatever takes time (the stream, a fetch, an upload, the training process) runs as a task of its own and answers with
an event. Persisting effects are awaited before the next effect, so nothing is told that is not written down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from ssd.daemon.logs import event as log_event
from ssd_wire import messages
from ssd_wire.messages import Down, UpdateKey, Welcome
from worker.connection.background import NamedTasks
from worker.connection.control_stream import ControlLink, FromLink, lost
from worker.core import effects, events
from worker.core.secagg_client import OFF
from worker.core.session import step
from worker.core.state import Link, Session
from worker.downloads.prepare import Preparation
from worker.errors import (
    CoordinatorFault,
    HistoryContradicted,
    InternalFault,
    RefusedForGood,
    SessionEnded,
    StorageFailed,
    TaskFault,
)
from worker.ports import Clock, DataAccess, Store, Trainer, Transport
from worker.secure_aggregation.rounds import SecureRounds, SecureSettings
from worker.store.effects import Recorder
from worker.telemetry.metrics import Metrics, bounded
from worker.telemetry.tracing import NoTracing, Tracing
from worker.uploader import Uploader
from worker.uploads.body import Uploads
from worker.uploads.layouts import Plans

_log = logging.getLogger(__name__)
_STOP_SECONDS = 10.0
_PROGRESS_PARTS = 1000
"""Of a client's training, under secure aggregation."""


@dataclass(frozen=True, slots=True)
class _Defect:
    """A task failed in a way nobody foresaw."""

    error: BaseException


class Driver:
    """Runs one worker session machine against its ports."""

    def __init__(
        self,
        session: Session,
        store: Store,
        transport: Transport,
        trainer: Callable[[Driver], Trainer],
        clock: Clock,
        metrics: Metrics,
        secure: SecureSettings,
        tracing: Tracing | None = None,
    ) -> None:
        self.session = session
        self._store = store
        self._transport = transport
        self._clock = clock
        self._metrics = metrics
        self._tracing: Tracing = tracing or NoTracing()
        self._queue: asyncio.Queue[events.Event | FromLink | _Defect] = asyncio.Queue()
        self._trainer = trainer(self)
        self._preparation = Preparation(store, transport, clock)
        self._tasks = NamedTasks(lambda error: self._queue.put_nowait(_Defect(error)))
        self._link = ControlLink(transport, clock, self._tasks, self._queue.put_nowait)
        self._busy_before = 0.0
        self._welcome: Welcome | None = None
        self._task: Any = None
        self._failure: Exception | None = None
        self._stop_wanted = asyncio.Event()
        self._started = clock.monotonic()
        metrics.hosted_clients.set(len(session.clients))
        recorder = Recorder(store, metrics, self._stop_wanted)
        plans = Plans(self._preparation)
        self._secure = SecureRounds(
            settings=secure,
            access=self._access,
            plans=plans,
            store=store,
            transport=transport,
            clock=clock,
            metrics=metrics,
            tasks=self._tasks,
            post=self.post,
        )
        self._uploader = Uploader(
            access=self._access,
            plans=plans,
            uploads=Uploads(store, transport, clock),
            secure=self._secure,
            clock=clock,
            metrics=metrics,
            tracing=self._tracing,
            post=self.post,
        )
        self._performers: dict[type, Callable[[Any], Coroutine[Any, Any, None]]] = {
            effects.OpenLink: self._open_link,
            effects.CloseLink: self._close_link,
            effects.Redial: self._redial,
            effects.GiveUp: self._give_up,
            effects.Decline: self._decline,
            effects.OpenSession: self._open_session,
            effects.EnterRun: recorder.enter_run,
            effects.KeepUpdate: recorder.keep_update,
            effects.ForgetFiles: recorder.forget_files,
            effects.Promote: recorder.promote,
            effects.DropUpdates: recorder.drop_updates,
            effects.Reinitialise: recorder.reinitialise,
            effects.DropVersions: recorder.drop_versions,
            effects.RememberVersion: recorder.remember_version,
            effects.RememberLevel: recorder.remember_level,
            effects.Distrust: self._distrust,
            effects.Prepare: self._prepare,
            effects.StopPreparing: self._stop_preparing,
            effects.TrainClient: self._train_client,
            effects.StopTraining: self._stop_training,
            effects.RunEvaluation: self._run_evaluation,
            effects.StartUpload: self._start_upload,
            effects.StopUpload: self._stop_upload,
            effects.ArmUploadTimer: self._arm_upload_timer,
            effects.Send: self._send,
            effects.Note: self._note,
            **self._secure.performers,
        }

    # ------------------------------------------------------------------------------------------------- the loop

    def post(self, event: events.Event) -> None:
        """Queue an event; on the event loop only."""
        self._queue.put_nowait(event)

    def stop(self) -> None:
        """Begin a graceful end: the training stops, what is finished stays."""
        self._stop_wanted.set()
        self.post(events.StopRequested())

    async def run(self) -> None:
        """Until stopped.

        Raises:
            RefusedForGood: the coordinator will never take this worker.
            StorageFailed: the store failed where going on would break a promise.
        """
        self.post(events.DialDue())
        try:
            while not self._finished():
                await self._handle(await self._next_event())
        finally:
            await self._tasks.close()
            await self._secure.close()
            await self._trainer.close()
            await self._transport.close()
        if self._failure is not None:
            raise self._failure

    def progress(self, key: UpdateKey, done: int, total: int, seconds: float) -> None:
        """A running client's progress: told to the coordinator while there is a stream, else forgotten."""
        current = self.session.work
        if not self._link.is_open or current is None or current.train.key(key.client) != key or done >= total:
            return
        task = current.train
        if self.session.level != OFF:
            # The number of steps tells how many images a client has, which is masked in its update.
            done, total = _PROGRESS_PARTS * done // total, _PROGRESS_PARTS
        message = messages.Progress(
            round=task.round, attempt=task.attempt, client=key.client, step=done, steps=total, seconds=seconds
        )
        self._link.send(message)

    @property
    def attending(self) -> bool:
        """Whether the coordinator's welcome stands."""
        return self.session.link is Link.ATTENDING

    def _finished(self) -> bool:
        return self._failure is not None or (self.session.stopped and self.session.job is None)

    async def _next_event(self) -> events.Event | FromLink | _Defect:
        if not self.session.stopped:
            return await self._queue.get()
        try:
            return await asyncio.wait_for(self._queue.get(), _STOP_SECONDS)
        except TimeoutError:
            return events.TrainingStopped()

    async def _handle(self, item: events.Event | FromLink | _Defect) -> None:
        if isinstance(item, _Defect):
            raise InternalFault(f"{type(item.error).__name__}: {item.error}") from item.error
        if isinstance(item, FromLink):
            if item.link != self._link.number or self.session.link is Link.OFFLINE:
                return
            event = await self._event_of(item.message)
        else:
            event = item
        try:
            self.session, todo = step(self.session, event)
        except CoordinatorFault as fault:
            await self._close_link(None)
            self.post(lost(fault, self._clock.uniform()))
            return
        self._tracing.stepped(self.session.run_id, event, todo)
        try:
            for effect in todo:
                await self._performers[type(effect)](effect)
        except StorageFailed as error:
            # Nothing after it may be told or done; a restart learns the fates again.
            self._failure = error
        self._measure()

    async def _event_of(self, message: Down | events.LinkLost) -> events.Event:
        if not isinstance(message, Welcome):
            return message
        stored = None
        if message.run_id != self.session.run_id:
            stored = await asyncio.to_thread(self._store.load_run, message.run_id)
        return events.Welcomed(welcome=message, stored=stored)

    def _measure(self) -> None:
        session, metrics = self.session, self._metrics
        metrics.connected.set(session.link is Link.ATTENDING)
        metrics.held_updates.set(len(session.held))
        if session.versions:
            metrics.model_version.set(max(session.versions))

    # ---------------------------------------------------------------------------------------------------- link

    async def _open_link(self, effect: effects.OpenLink) -> None:
        self._link.open(effect)

    async def _close_link(self, _: effects.CloseLink | None) -> None:
        self._link.close()

    async def _redial(self, effect: effects.Redial) -> None:
        self._tasks.spawn("redial", self._post_later(effect.seconds, events.DialDue()))

    async def _post_later(self, seconds: float, event: events.Event) -> None:
        await self._clock.sleep(seconds)
        self.post(event)

    async def _give_up(self, effect: effects.GiveUp) -> None:
        self._failure = RefusedForGood(
            f"the coordinator refuses this worker ({effect.reason}): {effect.detail or 'no further explanation'}"
        )

    async def _decline(self, effect: effects.Decline) -> None:
        self._failure = RefusedForGood(f"this worker takes no part in the run: {effect.detail}")

    async def _distrust(self, effect: effects.Distrust) -> None:
        self._metrics.rollbacks_refused.inc()
        self._failure = HistoryContradicted(
            f"the coordinator contradicts what this worker remembers of {effect.detail}. Its state directory seems to be"
            " an older backup, or not its own. Restore the newest one; or, if its operator says that the rounds are to"
            " be undone, start this worker once with --accept-rollback"
        )

    async def _open_session(self, effect: effects.OpenSession) -> None:
        welcome = self._welcome = effect.welcome
        self._busy_before = self._trainer.busy_seconds()
        # A little early: the promise is "at least every".
        self._link.beat(welcome.heartbeat_seconds * 0.8, self._heartbeat)
        log_event(
            _log,
            logging.INFO,
            "connected",
            run=welcome.run_id,
            version=welcome.version.number,
            coordinator_build=welcome.build,
        )

    def _heartbeat(self, interval: float) -> messages.Heartbeat:
        before, self._busy_before = self._busy_before, self._trainer.busy_seconds()
        share = min(1.0, max(0.0, (self._busy_before - before) / interval))
        self._metrics.busy_share.set(share)
        self._metrics.gpu_memory_bytes.set(self._trainer.device_memory_used)
        return messages.Heartbeat(
            uptime_seconds=int(self._clock.monotonic() - self._started),
            device_memory_used=self._trainer.device_memory_used,
            busy_share=share,
        )

    async def _send(self, effect: effects.Send) -> None:
        self._link.send(effect.message)

    # ---------------------------------------------------------------------------------------------------- work

    async def _prepare(self, effect: effects.Prepare) -> None:
        self._tasks.spawn("prepare", self._get_ready(effect.train))

    async def _stop_preparing(self, _: effects.StopPreparing) -> None:
        self._tasks.cancel("prepare")

    async def _get_ready(self, task: messages.Train) -> None:
        key = task.key("")
        started = self._clock.monotonic()
        try:
            welcome, access = self._access()
            access = replace(access, parent=self._tracing.preparing)
            prepared = await self._preparation.prepare(
                welcome, access, task.base, task.artefacts, self.session.versions
            )
        except SessionEnded as ended:
            self.post(events.PrepareFailed(key=key, reason=ended.reason, detail=ended.detail, retry=True))
        except TaskFault as fault:
            self.post(events.PrepareFailed(key=key, reason=fault.reason, detail=fault.detail, retry=False))
        except StorageFailed as error:
            self.post(events.PrepareFailed(key=key, reason="storage", detail=str(error), retry=False))
        else:
            self._task = prepared
            self._metrics.prepare_seconds.observe(self._clock.monotonic() - started)
            self.post(events.Prepared(key=key, number=task.base.number))

    def _access(self) -> tuple[Welcome, DataAccess]:
        welcome = self._welcome
        assert welcome is not None  # data calls follow a welcome
        return welcome, DataAccess(session=welcome.session, endpoints=welcome.data_endpoints)

    async def _train_client(self, effect: effects.TrainClient) -> None:
        await self._trainer.train(effect.train, effect.client, self._task)

    async def _stop_training(self, _: effects.StopTraining) -> None:
        self._tasks.cancel("evaluate")
        await self._trainer.stop()

    async def _run_evaluation(self, effect: effects.RunEvaluation) -> None:
        self._tasks.spawn("evaluate", self._measure_version(effect.evaluate))

    async def _measure_version(self, evaluate: messages.Evaluate) -> None:
        number = evaluate.version.number
        try:
            welcome, access = self._access()
            prepared = await self._preparation.prepare(
                welcome, access, evaluate.version, evaluate.artefacts, self.session.versions
            )
        except SessionEnded:
            self.post(events.EvaluationEnded(version=number, lost=True))
            return
        except (TaskFault, StorageFailed) as error:
            nobody = () if evaluate.clients else None
            reason = error.reason if isinstance(error, TaskFault) else "storage"
            ended = events.EvaluationEnded(
                version=number, error=f"{error.code}: {error}", reason=reason, clients=nobody
            )
            self.post(ended)
            return
        key = UpdateKey(client="", round=0, base_digest=evaluate.version.model_digest, task_digest="")
        self.post(events.Prepared(key=key, number=number))
        if not evaluate.clients:
            await self._trainer.evaluate(number, evaluate.run_seed, prepared)
            return
        # A client that a later commit included has moved on: its state is no longer the version's.
        rounds = self.session.clients
        clients = tuple(task for task in evaluate.clients if rounds.get(task.client, number + 1) <= number)
        await self._trainer.evaluate_clients(replace(evaluate, clients=clients), prepared)

    # ------------------------------------------------------------------------------------------------- uploads

    async def _start_upload(self, effect: effects.StartUpload) -> None:
        self._tasks.spawn("upload", self._uploader.run(effect))

    async def _stop_upload(self, _: effects.StopUpload) -> None:
        self._tasks.cancel("upload")

    async def _arm_upload_timer(self, effect: effects.ArmUploadTimer) -> None:
        due = events.UploadDue(round=effect.round, attempt=effect.attempt)
        self._tasks.spawn("upload_timer", self._post_later(effect.seconds, due))

    # --------------------------------------------------------------------------------------------------- notes

    async def _note(self, effect: effects.Note) -> None:
        level = logging.getLevelNamesMapping()[effect.level.upper()]
        log_event(_log, level, effect.event, **effect.fields)
        if effect.event == "link_lost":
            self._metrics.reconnects.labels(bounded(str(effect.fields["reason"]))).inc()
        elif effect.event == "client_failed":
            self._metrics.client_tasks.labels("failed").inc()
        else:
            self._secure.count(effect)
