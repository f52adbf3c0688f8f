"""The control stream in use: one at a time, messages in both directions, heartbeats while it is welcome.

Sending never waits: messages queue up and leave in order. Whatever an older stream still brings is told apart by its
number, so that the driver can drop it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ssd_wire.messages import Down, Heartbeat, Up
from worker.connection.background import NamedTasks
from worker.core.effects import OpenLink
from worker.core.events import LinkLost
from worker.errors import CoordinatorFault, LinkBroken
from worker.ports import Clock, Stream, Transport


@dataclass(frozen=True, slots=True)
class FromLink:
    """What a control stream brought."""

    link: int
    message: Down | LinkLost


class ControlLink:
    """Opens and closes streams; what they bring goes to `deliver`."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        tasks: NamedTasks,
        deliver: Callable[[FromLink], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._tasks = tasks
        self._deliver = deliver
        self._outbox: asyncio.Queue[Up] | None = None
        self.number = 0
        """Of the stream in use; of no stream any more once it is closed."""

    @property
    def is_open(self) -> bool:
        """Whether what is sent now has somewhere to go."""
        return self._outbox is not None

    def open(self, opening: OpenLink) -> None:
        """Open a stream in place of the one before."""
        self.close()
        self._outbox = asyncio.Queue()
        self._tasks.spawn("link", self._attend(self.number, opening, self._outbox))

    def close(self) -> None:
        """End the stream, if there is one."""
        self.number += 1
        self._outbox = None
        for name in ("heartbeats", "sender", "link"):
            self._tasks.cancel(name)

    def send(self, message: Up) -> None:
        """Send a message; it is lost if there is no stream."""
        if self._outbox is not None:
            self._outbox.put_nowait(message)

    def beat(self, interval: float, make: Callable[[float], Heartbeat]) -> None:
        """Send what `make` makes of the interval, every interval (seconds), until the stream ends."""
        self._tasks.spawn("heartbeats", self._beat(interval, make))

    async def _beat(self, interval: float, make: Callable[[float], Heartbeat]) -> None:
        while True:
            await self._clock.sleep(interval)
            self.send(make(interval))

    async def _attend(self, number: int, opening: OpenLink, outbox: asyncio.Queue[Up]) -> None:
        try:
            async with self._transport.attend(opening) as stream:
                self._tasks.spawn("sender", self._send_all(stream, outbox))
                async for message in stream.messages():
                    self._deliver(FromLink(number, message))
        except (LinkBroken, CoordinatorFault) as error:
            self._deliver(FromLink(number, lost(error, self._clock.uniform())))
        finally:
            if self.number == number:
                self._outbox = None
                for name in ("heartbeats", "sender"):
                    self._tasks.cancel(name)

    async def _send_all(self, stream: Stream, outbox: asyncio.Queue[Up]) -> None:
        try:
            while True:
                await stream.send(await outbox.get())
        except LinkBroken:
            # The reader of the same stream reports why it ended.
            return


def lost(error: LinkBroken | CoordinatorFault, uniform: float) -> LinkLost:
    """The session's event for a stream that ended with this error."""
    reason = error.reason if isinstance(error, LinkBroken) else error.code
    detail = error.detail if isinstance(error, LinkBroken) else str(error)
    return LinkLost(reason=reason, detail=detail, uniform=uniform)
