"""A listening socket for strangers: so many connections at once, so many a second, and none for longer than a while.

What listens behind it (gRPC's server, aiohttp's) bounds what a request may do, but not how many connections shake
hands at once, how often, or how long one may take to say what it wants. Connections over the rate are not accepted
yet: they wait in the kernel's queue, which is short, and cost nobody anything there. Where there are too many at once
the oldest makes room, not the newest: who has something to ask is done soon, who only holds a place has held it longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from coordinator.runtime.rate_limit import PaceLimit, network_of
from ssd.daemon.address import Address
from ssd.daemon.logs import event as log_event

log = logging.getLogger(__name__)

QUEUE = 128
"""Connections the kernel keeps waiting; further ones knock again by themselves."""
OUT_OF_FILES_SECONDS = 0.5
PIECE_BYTES = 64 << 10

Serve = Callable[[socket.socket, str], Awaitable[None]]
"""What is done with a connection and the host it comes from. Whoever serves it closes the socket; being cancelled
means that its time is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What strangers may take together."""

    at_once: int
    """Open connections."""
    at_once_per_host: int
    per_second: float
    """New connections, after a second's worth of them at once."""
    seconds: float
    """From accepting a connection to its end."""


class Door:
    """Lets connections in.

    Args:
        bounds: how many.
        serve: what with.
        on_cut: told of each that made room.
    """

    def __init__(self, bounds: Bounds, serve: Serve, on_cut: Callable[[], None]) -> None:
        self._bounds = bounds
        self._serve = serve
        self._on_cut = on_cut
        self._pace = PaceLimit(bounds.per_second, burst_seconds=1.0)
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[asyncio.Task[None], str] = {}
        """Connections that count, oldest first, with their hosts."""

    async def open(self, address: Address) -> Address:
        """Listen; where (the port, if any free one was asked for).

        Raises:
            OSError: the address cannot be bound.
        """
        self._listening = await asyncio.to_thread(_listen, address)
        self._accepting = [asyncio.create_task(self._accept(each)) for each in self._listening]
        if address.path:
            return address
        return Address(host=address.host, port=self._listening[0].getsockname()[1])

    async def shut(self) -> None:
        """Take no new connections; those that are open go on. Idempotent."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for each in self._listening:
            each.close()
        self._accepting, self._listening = [], []

    async def close(self) -> None:
        """End every connection as well. Idempotent."""
        await self.shut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, name = await loop.sock_accept(listening)
            except OSError as error:
                # No file is free, or the peer is gone already: neither ends the listening.
                log_event(log, logging.DEBUG, "not_accepted", detail=str(error))
                await asyncio.sleep(OUT_OF_FILES_SECONDS)
                continue
            host = network_of(name[0]) if isinstance(name, tuple) else "unix"
            self._make_room(host)
            self._let_in(peer, host)
            await asyncio.sleep(self._pace.seconds_to_wait(1, loop.time()))

    def _make_room(self, host: str) -> None:
        theirs = [task for task, of in self._open.items() if of == host]
        if len(theirs) >= self._bounds.at_once_per_host:
            oldest = theirs[0]
        elif len(self._open) >= self._bounds.at_once:
            oldest = next(iter(self._open))
        else:
            return
        del self._open[oldest]
        oldest.cancel()
        self._on_cut()

    def _let_in(self, peer: socket.socket, host: str) -> None:
        task = asyncio.create_task(self._attend(peer, host))
        self._open[task] = host
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._open.pop(task, None)
            if not task.cancelled() and (defect := task.exception()) is not None:
                log_event(log, logging.ERROR, "connection_failed", defect)

        task.add_done_callback(over)

    async def _attend(self, peer: socket.socket, host: str) -> None:
        # Whatever a stranger does to a connection ends it, and nothing else.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(self._bounds.seconds):
                await self._serve(peer, host)


def _listen(address: Address) -> list[socket.socket]:
    """Sockets that listen on every address a name stands for."""
    with contextlib.ExitStack() as undo:
        if address.path:
            listening = [undo.enter_context(socket.socket(socket.AF_UNIX))]
            listening[0].bind(address.path)
        else:
            listening, port = [], address.port
            for family, kind, protocol, _, name in socket.getaddrinfo(
                address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                each = undo.enter_context(socket.socket(family, kind, protocol))
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # `[::]` means every address there is, as it does to gRPC.
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
                each.bind((name[0], port, *name[2:]))
                port = each.getsockname()[1]
                listening.append(each)
        for each in listening:
            each.listen(QUEUE)
            each.setblocking(False)
        undo.pop_all()
        return listening


async def relay(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side has ended.

    Raises:
        OSError: one of them failed.
    """
    ways = {asyncio.create_task(_carry(one, other)), asyncio.create_task(_carry(other, one))}
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in ways:
            each.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _carry(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(source, PIECE_BYTES):
        await loop.sock_sendall(target, piece)
