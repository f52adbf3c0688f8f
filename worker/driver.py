"""The only loop: events in, one `step`, effects out, in order.

Whatever takes time (the stream, a fetch, an upload, the training process) runs as a task of its own and answers with
an event. Persisting effects are awaited before the next effect, so nothing is told that is not written down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ssd.daemon.logs import event as log_event
from ssd_wire import messages
from ssd_wire.messages import Down, UpdateKey, Welcome
from worker.connection.background import NamedTasks
from worker.connection.control_stream import FromLink, lost
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
    StorageFailed,
)
from worker.performers.connection import ConnectionEffects
from worker.performers.tasks import TaskEffects
from worker.performers.uploads import UploadEffects
from worker.ports import Clock, Performers, Store, Trainer, Transport
from worker.secure_aggregation.rounds import SecureRounds, SecureSettings
from worker.store.effects import PersistenceEffects
from worker.telemetry.metrics import Metrics, bounded
from worker.telemetry.tracing import NoTracing, Tracing
from worker.uploads.body import Uploads
from worker.uploads.layouts import BodyLayouts

_log = logging.getLogger(__name__)
_STOP_SECONDS = 10.0
_PROGRESS_PARTS = 1000
"""Steps that a client is said to train for under secure aggregation."""


@dataclass(frozen=True, slots=True)
class _Defect:
    """A task failed in a way nobody foresaw."""

    error: BaseException


class Driver:
    """Runs one worker session machine against its ports.

    Args:
        session: the machine's state to begin with.
        store: the worker's durable memory.
        transport: the coordinator, reached over the network.
        trainer: makes the training process, which answers through `post` and `progress`.
        clock: for waits, durations and chance.
        metrics: what the worker shows of itself.
        secure: what the worker is under secure aggregation.
        tracing: where spans go; None: nowhere.
    """

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
        self._tasks = NamedTasks(lambda error: self._queue.put_nowait(_Defect(error)))
        self._failure: Exception | None = None
        self._stop_wanted = asyncio.Event()
        metrics.hosted_clients.set(len(session.clients))
        self._connection = ConnectionEffects(
            transport=transport,
            trainer=self._trainer,
            clock=clock,
            metrics=metrics,
            tasks=self._tasks,
            deliver=self._queue.put_nowait,
            post=self.post,
        )
        self._preparation = Preparation(store, transport, clock)
        layouts = BodyLayouts(self._preparation)
        self._secure = SecureRounds(
            settings=secure,
            access=self._connection.access,
            layouts=layouts,
            store=store,
            transport=transport,
            clock=clock,
            metrics=metrics,
            tasks=self._tasks,
            post=self.post,
        )
        self._performers = self._table(layouts, secure)

    def _table(self, layouts: BodyLayouts, secure: SecureSettings) -> Performers:
        """Say who carries out which effect."""
        tasks = TaskEffects(
            access=self._connection.access,
            preparation=self._preparation,
            trainer=self._trainer,
            clock=self._clock,
            metrics=self._metrics,
            tasks=self._tasks,
            tracing=self._tracing,
            session=lambda: self.session,
            admission=secure.admission,
            post=self.post,
        )
        uploads = UploadEffects(
            access=self._connection.access,
            layouts=layouts,
            uploads=Uploads(self._store, self._transport, self._clock),
            secure=self._secure,
            clock=self._clock,
            metrics=self._metrics,
            tracing=self._tracing,
            tasks=self._tasks,
            post=self.post,
        )
        return {
            effects.GiveUp: self._give_up,
            effects.Decline: self._decline,
            effects.Distrust: self._distrust,
            effects.Note: self._note,
            **self._connection.performers,
            **PersistenceEffects(self._store, self._metrics, self._stop_wanted).performers,
            **tasks.performers,
            **uploads.performers,
            **self._secure.performers,
        }

    # ------------------------------------------------------------------------------------------------- the loop

    def post(self, event: events.Event) -> None:
        """Queue an event. Called on the event loop only."""
        self._queue.put_nowait(event)

    def stop(self) -> None:
        """Begin a graceful end: the training stops, what is finished stays."""
        self._stop_wanted.set()
        self.post(events.StopRequested())

    async def run(self) -> None:
        """Run until stopped.

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
        """Tell the coordinator how far a running client is, if there is a stream."""
        current = self.session.work
        if (
            not self._connection.is_open
            or current is None
            or current.train.key(key.client) != key
            or done >= total
        ):
            return
        task = current.train
        if self.session.level != OFF:
            # The number of steps tells how many images a client has, which is masked in its update.
            done, total = _PROGRESS_PARTS * done // total, _PROGRESS_PARTS
        message = messages.Progress(
            round=task.round, attempt=task.attempt, client=key.client, step=done, steps=total, seconds=seconds
        )
        self._connection.send(message)

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
            if not self._connection.brought(item) or self.session.link is Link.OFFLINE:
                return
            event = await self._event_of(item.message)
        else:
            event = item
        try:
            self.session, todo = step(self.session, event)
        except CoordinatorFault as fault:
            self._connection.close()
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

    # -------------------------------------------------------------------------------------- ends and notes

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

    async def _note(self, effect: effects.Note) -> None:
        level = logging.getLevelNamesMapping()[effect.level.upper()]
        log_event(_log, level, effect.event, **effect.fields)
        if effect.event == "link_lost":
            self._metrics.reconnects.labels(bounded(str(effect.fields["reason"]))).inc()
        elif effect.event == "client_failed":
            self._metrics.client_tasks.labels("failed").inc()
        else:
            self._secure.count(effect)
