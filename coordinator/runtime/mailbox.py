"""The driver's queue: everything that touches the run's state waits its turn here, so nothing needs a lock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coordinator.errors import ClientFault, Reason

T = TypeVar("T")
Command = Callable[[], Awaitable[None]]


class Mailbox:
    """Commands in the order they came."""

    def __init__(self) -> None:
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether the loop was told to end."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Take nothing more. Idempotent."""
        self._stopping.set()

    def put(self, command: Command) -> None:
        """Queue a command nobody waits for."""
        self._commands.put_nowait(command)

    async def next(self, timeout: float) -> Command | None:
        """The next command; None after `timeout` seconds or once stopped."""
        command = asyncio.ensure_future(self._commands.get())
        await self._first_of(command, timeout)
        if command.done():
            return command.result()
        command.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await command
        return None

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Run `command` between two events and give its result.

        Raises:
            ClientFault: reason draining, if the loop ends before it is done.
        """
        if self.stopping:
            raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await command()
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
                if not isinstance(error, ClientFault):
                    # Effects were left undone: the loop must not go on as if they had been.
                    raise
            else:
                if not done.done():
                    done.set_result(result)

        self.put(run)
        await self.or_stopped(done)
        if not done.done():
            raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
        return done.result()

    async def or_stopped(self, future: asyncio.Future[T]) -> None:
        """Wait until `future` is done or the loop was told to end (with one turn of grace for a last command)."""
        await self._first_of(future, None)
        if not future.done():
            await asyncio.sleep(0)

    async def _first_of(self, future: asyncio.Future[T], timeout: float | None) -> None:
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((future, stopped), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
