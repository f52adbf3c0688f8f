"""The only loop: events in, one `step`, effects out, in order.

Whatever takes time (the stream, a fetch, an upload, the training process) runs as a task of its own and answers with
an event. Persisting effects are awaited before the next effect, so nothing is told that is not written down.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ssd.codec import Encoding
from ssd.folding import FoldPlan
from worker.core import effects, events, messages
from worker.core.messages import Down, UpdateKey, Welcome
from worker.core.session import step
from worker.core.state import Link, Session
from worker.errors import (
    CoordinatorFault,
    InternalFault,
    LinkBroken,
    RefusedForGood,
    SessionEnded,
    StorageFailed,
    TaskFault,
)
from worker.logs import fields
from worker.metrics import Metrics, bounded
from worker.ports import Clock, DataAccess, Store, Stream, Trainer, Transport
from worker.preparation import Preparation
from worker.uploads import UploadBody, Uploads

_log = logging.getLogger(__name__)
_STOP_SECONDS = 10.0
_FULL_DISK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _FromLink:
    """What a control stream brought; of an older stream it is dropped."""

    link: int
    message: Down | events.LinkLost


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
    ) -> None:
        self.session = session
        self._store = store
        self._transport = transport
        self._clock = clock
        self._metrics = metrics
        self._queue: asyncio.Queue[events.Event | _FromLink | _Defect] = asyncio.Queue()
        self._trainer = trainer(self)
        self._preparation = Preparation(store, transport, clock)
        self._uploads = Uploads(store, transport, clock)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._links = 0
        self._stream: Stream | None = None
        self._welcome: Welcome | None = None
        self._plan: tuple[object, FoldPlan] | None = None
        self._task: Any = None
        self._failure: Exception | None = None
        self._stop_wanted = asyncio.Event()
        self._started = clock.monotonic()
        metrics.hosted_clients.set(len(session.clients))
        self._performers: dict[type, Callable[[Any], Coroutine[Any, Any, None]]] = {
            effects.OpenLink: self._open_link,
            effects.CloseLink: self._close_link,
            effects.Redial: self._redial,
            effects.GiveUp: self._give_up,
            effects.OpenSession: self._open_session,
            effects.EnterRun: self._enter_run,
            effects.KeepUpdate: self._keep_update,
            effects.ForgetFiles: self._forget_files,
            effects.Promote: self._promote,
            effects.DropUpdates: self._drop_updates,
            effects.Reinitialise: self._reinitialise,
            effects.DropVersions: self._drop_versions,
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
            await self._close()
        if self._failure is not None:
            raise self._failure

    def progress(self, key: UpdateKey, done: int, total: int, seconds: float) -> None:
        """A running client's progress: told to the coordinator while there is a stream, else forgotten."""
        current = self.session.work
        if self._stream is None or current is None or current.train.key(key.client) != key or done >= total:
            return
        task = current.train
        message = messages.Progress(
            round=task.round, attempt=task.attempt, client=key.client, step=done, steps=total, seconds=seconds
        )
        self._spawn("progress", self._send(effects.Send(message=message)))

    @property
    def attending(self) -> bool:
        """Whether the coordinator's welcome stands."""
        return self.session.link is Link.ATTENDING

    def _finished(self) -> bool:
        return self._failure is not None or (self.session.stopped and self.session.job is None)

    async def _next_event(self) -> events.Event | _FromLink | _Defect:
        if not self.session.stopped:
            return await self._queue.get()
        try:
            return await asyncio.wait_for(self._queue.get(), _STOP_SECONDS)
        except TimeoutError:
            return events.TrainingStopped()

    async def _handle(self, item: events.Event | _FromLink | _Defect) -> None:
        if isinstance(item, _Defect):
            raise InternalFault(f"{type(item.error).__name__}: {item.error}") from item.error
        if isinstance(item, _FromLink):
            if item.link != self._links or self.session.link is Link.OFFLINE:
                return
            event = await self._event_of(item.message)
        else:
            event = item
        try:
            self.session, todo = step(self.session, event)
        except CoordinatorFault as fault:
            await self._close_link(None)
            self.post(_lost(fault, self._clock))
            return
        pending = deque(todo)
        # After a failed write nothing may be told or done that rests on it.
        while pending and self._failure is None:
            effect = pending.popleft()
            await self._performers[type(effect)](effect)
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

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a task under a name; an older one of that name is cancelled."""
        self._cancel(name)
        task = self._tasks[name] = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # What a task did not foresee is a defect; it must end the daemon, not leave it half alive.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._queue.put_nowait(_Defect(error))

    def _cancel(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def _close(self) -> None:
        # One at a time: the end of one (the stream) may take others (its heartbeats) along.
        while self._tasks:
            _, task = self._tasks.popitem()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._trainer.close()
        await self._transport.close()

    # ---------------------------------------------------------------------------------------------------- link

    async def _open_link(self, effect: effects.OpenLink) -> None:
        self._links += 1
        self._spawn("link", self._attend(self._links, effect.hello))

    async def _attend(self, link: int, hello: messages.Hello) -> None:
        try:
            async with self._transport.attend(hello) as stream:
                self._stream = stream
                async for message in stream.messages():
                    self._queue.put_nowait(_FromLink(link, message))
        except (LinkBroken, CoordinatorFault) as error:
            self._queue.put_nowait(_FromLink(link, _lost(error, self._clock)))
        finally:
            if self._links == link:
                self._stream = None
                self._cancel("heartbeats")

    async def _close_link(self, _: effects.CloseLink | None) -> None:
        self._links += 1
        self._stream = None
        self._cancel("heartbeats")
        self._cancel("link")

    async def _redial(self, effect: effects.Redial) -> None:
        self._spawn("redial", self._dial_later(effect.seconds))

    async def _dial_later(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self.post(events.DialDue())

    async def _give_up(self, effect: effects.GiveUp) -> None:
        self._failure = RefusedForGood(
            f"the coordinator refuses this worker ({effect.reason}): {effect.detail or 'no further explanation'}"
        )

    async def _open_session(self, effect: effects.OpenSession) -> None:
        welcome = self._welcome = effect.welcome
        self._spawn("heartbeats", self._heartbeats(welcome.heartbeat_seconds))
        _log.info(
            "connected",
            extra=fields(run=welcome.run_id, version=welcome.version.number, coordinator_build=welcome.build),
        )

    async def _heartbeats(self, seconds: float) -> None:
        # A little early: the promise is "at least every".
        interval = seconds * 0.8
        busy = self._trainer.busy_seconds()
        while True:
            await self._clock.sleep(interval)
            before, busy = busy, self._trainer.busy_seconds()
            share = min(1.0, max(0.0, (busy - before) / interval))
            self._metrics.busy_share.set(share)
            self._metrics.gpu_memory_bytes.set(self._trainer.device_memory_used)
            beat = messages.Heartbeat(
                uptime_seconds=int(self._clock.monotonic() - self._started),
                device_memory_used=self._trainer.device_memory_used,
                busy_share=share,
            )
            await self._send(effects.Send(message=beat))

    async def _send(self, effect: effects.Send) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            await stream.send(effect.message)
        except LinkBroken:
            # The reader of the same stream reports why it ended.
            return

    # -------------------------------------------------------------------------------------------------- memory

    async def _persist(self, write: Callable[..., None], *arguments: object) -> None:
        while True:
            try:
                await asyncio.to_thread(write, *arguments)
                return
            except StorageFailed as error:
                if not error.full or self._stop_wanted.is_set():
                    self._failure = error
                    return
                _log.error("storage_full", extra=fields(detail=str(error), retry_seconds=_FULL_DISK_SECONDS))
            # Finished training is not thrown away for want of room: wait until there is some.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_wanted.wait(), _FULL_DISK_SECONDS)

    async def _enter_run(self, effect: effects.EnterRun) -> None:
        await self._persist(self._store.enter_run, effect.run_id)

    async def _keep_update(self, effect: effects.KeepUpdate) -> None:
        self._metrics.training_seconds.observe(effect.finished.seconds)
        self._metrics.client_tasks.labels("finished").inc()
        await self._persist(self._store.keep, effect.finished)

    async def _forget_files(self, effect: effects.ForgetFiles) -> None:
        self._metrics.client_tasks.labels("forgotten").inc()
        await self._persist(self._store.drop, (effect.finished.key,))

    async def _promote(self, effect: effects.Promote) -> None:
        await self._persist(self._store.promote, effect.keys)
        self._metrics.promoted.inc(len(effect.keys))

    async def _drop_updates(self, effect: effects.DropUpdates) -> None:
        _log.info("updates_dropped", extra=fields(count=len(effect.keys), reason=effect.reason))
        await self._persist(self._store.drop, effect.keys)

    async def _reinitialise(self, effect: effects.Reinitialise) -> None:
        clients = sorted(effect.rounds)
        _log.warning("clients_reinitialised", extra=fields(clients=clients, reason=effect.reason))
        self._metrics.reinitialised.inc(len(clients))
        await self._persist(self._store.reinitialise, effect.rounds)

    async def _drop_versions(self, effect: effects.DropVersions) -> None:
        await self._persist(self._store.drop_versions, effect.model_digests)

    # ---------------------------------------------------------------------------------------------------- work

    async def _prepare(self, effect: effects.Prepare) -> None:
        self._spawn("prepare", self._get_ready(effect.train))

    async def _stop_preparing(self, _: effects.StopPreparing) -> None:
        self._cancel("prepare")

    async def _get_ready(self, task: messages.Train) -> None:
        key = task.key("")
        started = self._clock.monotonic()
        try:
            welcome, access = self._access()
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
        self._cancel("evaluate")
        await self._trainer.stop()

    async def _run_evaluation(self, effect: effects.RunEvaluation) -> None:
        self._spawn("evaluate", self._measure_version(effect.evaluate))

    async def _measure_version(self, evaluate: messages.Evaluate) -> None:
        number = evaluate.version.number
        try:
            welcome, access = self._access()
            prepared = await self._preparation.prepare(
                welcome, access, evaluate.version, (), self.session.versions
            )
        except SessionEnded:
            self.post(events.EvaluationEnded(version=number, lost=True))
            return
        except (TaskFault, StorageFailed) as error:
            self.post(events.EvaluationEnded(version=number, error=f"{error.code}: {error}"))
            return
        key = UpdateKey(client="", round=0, base_digest=evaluate.version.model_digest, task_digest="")
        self.post(events.Prepared(key=key, number=number))
        await self._trainer.evaluate(number, evaluate.run_seed, prepared)

    # ------------------------------------------------------------------------------------------------- uploads

    async def _start_upload(self, effect: effects.StartUpload) -> None:
        self._spawn("upload", self._upload(effect))

    async def _stop_upload(self, _: effects.StopUpload) -> None:
        self._cancel("upload")

    async def _upload(self, effect: effects.StartUpload) -> None:
        try:
            welcome, access = self._access()
            plan = await self._fold_plan(welcome, access)
            body, failures = await self._uploads.build(welcome.run_id, plan, effect.train, effect.updates)
            if failures:
                self.post(events.UploadLeftOut(upload=effect.upload, failures=failures))
            if body is None:
                return
            verdict = await self._judge(welcome, access, body)
        except (SessionEnded, TaskFault) as error:
            _log.warning("upload_suspended", extra=fields(detail=str(error)))
            self.post(events.UploadBroken(upload=effect.upload))
            return
        self._metrics.uploads.labels(verdict.fate.value, bounded(verdict.reason)).inc()
        self.post(events.UploadEnded(upload=effect.upload, verdict=verdict))

    async def _judge(self, welcome: Welcome, access: DataAccess, body: UploadBody) -> messages.Verdict:
        size = body.envelope.body_size
        if welcome.max_upload_bytes and size > welcome.max_upload_bytes:
            return messages.Verdict(
                fate=messages.UploadFate.REJECTED,
                reason="message_too_large",
                detail=f"{size} bytes, the coordinator takes {welcome.max_upload_bytes}",
            )
        return await self._uploads.send(access, body, self._on_hold)

    async def _fold_plan(self, welcome: Welcome, access: DataAccess) -> FoldPlan:
        key = (
            welcome.declaration_digest,
            welcome.update_encoding,
            welcome.max_cohort,
            welcome.max_client_weight,
        )
        if self._plan is None or self._plan[0] != key:
            declaration = await self._preparation.declaration(welcome, access)
            encoding = Encoding(welcome.update_encoding)
            try:
                plan = FoldPlan.create(declaration, encoding, welcome.max_cohort, welcome.max_client_weight)
            except ValueError as error:
                raise TaskFault("declaration_unreadable", str(error), whole_task=True) from error
            self._plan = (key, plan)
        return self._plan[1]

    def _on_hold(self, held: bool) -> None:  # the port's callback
        if held:
            self._metrics.holds.inc()
        _log.debug("upload_hold" if held else "upload_go")

    async def _arm_upload_timer(self, effect: effects.ArmUploadTimer) -> None:
        self._spawn("upload_timer", self._upload_due(effect))

    async def _upload_due(self, effect: effects.ArmUploadTimer) -> None:
        await self._clock.sleep(effect.seconds)
        self.post(events.UploadDue(round=effect.round, attempt=effect.attempt))

    # --------------------------------------------------------------------------------------------------- notes

    async def _note(self, effect: effects.Note) -> None:
        _log.log(
            logging.getLevelNamesMapping()[effect.level.upper()], effect.event, extra=fields(**effect.fields)
        )
        if effect.event == "link_lost":
            self._metrics.reconnects.labels(bounded(str(effect.fields["reason"]))).inc()
        elif effect.event == "client_failed":
            self._metrics.client_tasks.labels("failed").inc()


def _lost(error: LinkBroken | CoordinatorFault, clock: Clock) -> events.LinkLost:
    reason = error.reason if isinstance(error, LinkBroken) else error.code
    detail = error.detail if isinstance(error, LinkBroken) else str(error)
    return events.LinkLost(reason=reason, detail=detail, uniform=clock.uniform())
