"""Carries out what has to do with the connection: streams opened and closed, messages sent, heartbeats."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ssd.daemon.logs import event as log_event
from ssd_wire import messages
from ssd_wire.messages import Welcome
from worker.connection.background import NamedTasks
from worker.connection.control_stream import ControlLink, FromLink
from worker.core import effects, events
from worker.ports import Clock, DataAccess, Performers, Post, Trainer, Transport
from worker.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_EARLY = 0.8
"""The part of the promised interval after which a heartbeat is sent: the promise is "at least every"."""


class ConnectionEffects:
    """Keeps the control stream in use and the welcome that came over it.

    Args:
        transport: opens streams.
        trainer: says how busy the worker is.
        clock: for waits and for the time the worker has been up.
        metrics: where the worker's load is shown.
        tasks: where the streams and the wait for the next one run.
        deliver: takes what a stream brings.
        post: takes the events.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        trainer: Trainer,
        clock: Clock,
        metrics: Metrics,
        tasks: NamedTasks,
        deliver: Callable[[FromLink], None],
        post: Post,
    ) -> None:
        self._stream = ControlLink(transport, clock, tasks, deliver)
        self._trainer = trainer
        self._clock = clock
        self._metrics = metrics
        self._tasks = tasks
        self._post = post
        self._welcome: Welcome | None = None
        self._busy_before = 0.0
        self._started = clock.monotonic()
        self.performers: Performers = {
            effects.OpenLink: self._open_link,
            effects.CloseLink: self._close_link,
            effects.Redial: self._redial,
            effects.OpenSession: self._open_session,
            effects.Send: self._send,
        }

    @property
    def is_open(self) -> bool:
        """Whether what is sent now has somewhere to go."""
        return self._stream.is_open

    def brought(self, item: FromLink) -> bool:
        """Whether it was the stream in use that brought this, not an older one."""
        return item.link == self._stream.number

    def send(self, message: messages.Up) -> None:
        """Send a message. It is lost if there is no stream."""
        self._stream.send(message)

    def close(self) -> None:
        """End the stream, if there is one."""
        self._stream.close()

    def access(self) -> tuple[Welcome, DataAccess]:
        """Return the welcome in use and what a data call needs."""
        welcome = self._welcome
        assert welcome is not None  # data calls follow a welcome
        return welcome, DataAccess(session=welcome.session, endpoints=welcome.data_endpoints)

    async def _open_link(self, effect: effects.OpenLink) -> None:
        self._stream.open(effect)

    async def _close_link(self, _: effects.CloseLink) -> None:
        self.close()

    async def _redial(self, effect: effects.Redial) -> None:
        self._tasks.spawn("redial", self._dial_later(effect.seconds))

    async def _dial_later(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._post(events.DialDue())

    async def _open_session(self, effect: effects.OpenSession) -> None:
        welcome = self._welcome = effect.welcome
        self._busy_before = self._trainer.busy_seconds()
        self._stream.beat(welcome.heartbeat_seconds * _EARLY, self._heartbeat)
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
        self.send(effect.message)
