"""Strangers at a door: too many, too often, too slow. Real sockets on this machine's own addresses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

from coordinator.runtime.listener import Bounds, Door, relay
from ssd.daemon.address import Address

T = TypeVar("T")
WIDE = {"at_once": 100, "at_once_per_host": 100, "per_second": 10_000.0, "seconds": 60.0}


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(work(), 20)

    return asyncio.run(within())


class Place:
    """A door behind which nothing is ever said."""

    def __init__(self, **bounds: Any) -> None:
        self.served: list[str] = []
        self.cut = 0
        self.door = Door(Bounds(**{**WIDE, **bounds}), self.serve, self.count)

    async def serve(self, peer: socket.socket, host: str) -> None:
        self.served.append(host)
        with peer:
            while await asyncio.get_running_loop().sock_recv(peer, 100):
                pass

    def count(self) -> None:
        self.cut += 1


@contextlib.asynccontextmanager
async def opened(place: Place, address: Address | None = None) -> AsyncIterator[int]:
    bound = await place.door.open(address or Address(host="127.0.0.1"))
    try:
        yield bound.port
    finally:
        await place.door.close()
        await place.door.close()


async def connect(port: int, source: str = "127.0.0.1") -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    reader.writer = writer  # type: ignore[attr-defined]  # or it would be closed
    return reader


async def over(reader: asyncio.StreamReader) -> bool:
    """Whether the other side has ended the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 0.1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in the door
        await asyncio.sleep(0.005)


def test_one_too_many_takes_the_place_of_the_oldest() -> None:
    async def work() -> None:
        place = Place(at_once=3)
        async with opened(place) as port:
            first = [await connect(port) for _ in range(3)]
            await until(lambda: len(place.served) == 3)
            later = [await connect(port) for _ in range(2)]
            await until(lambda: len(place.served) == 5)
            assert [await over(each) for each in (*first, *later)] == [True, True, False, False, False]
            assert place.cut == 2

    run(work)


def test_a_host_with_too_many_loses_its_own_oldest_and_nobody_elses() -> None:
    async def work() -> None:
        place = Place(at_once_per_host=2)
        async with opened(place) as port:
            quiet = await connect(port, "127.0.0.2")
            await until(lambda: place.served == ["127.0.0.2"])
            loud = [await connect(port) for _ in range(6)]
            await until(lambda: len(place.served) == 7)
            assert [await over(each) for each in (quiet, *loud)] == [False] + 4 * [True] + 2 * [False]
            assert place.cut == 4

    run(work)


def test_what_comes_too_often_waits_outside() -> None:
    async def work() -> None:
        place = Place(per_second=50.0)
        async with opened(place) as port:
            loop = asyncio.get_running_loop()
            began = loop.time()
            peers = [await connect(port) for _ in range(100)]
            await until(lambda: len(place.served) == 100)
            # A second's worth at once, and the second fifty at fifty a second.
            assert loop.time() - began >= 0.95
            assert place.cut == 0
            assert len(peers) == 100

    run(work)


def test_nobody_stays_for_longer_than_that() -> None:
    async def work() -> None:
        place = Place(seconds=0.2)
        async with opened(place) as port:
            peer = await connect(port)
            assert await peer.read() == b""

    run(work)


def test_a_host_that_hangs_up_at_once_harms_nobody() -> None:
    async def work() -> None:
        place = Place()
        async with opened(place) as port:
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", port)) as rude:
                    # Reset, not ended.
                    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer = await connect(port)
            await until(lambda: len(place.served) == 51)
            assert not await over(peer)

    run(work)


@pytest.mark.parametrize("host", ["localhost", "::", "0.0.0.0"])
def test_every_address_of_a_name_is_listened_on_at_one_port(host: str) -> None:
    async def work() -> None:
        place = Place()
        async with opened(place, Address(host=host)) as port:
            await connect(port)
            await until(lambda: place.served == ["127.0.0.1"])

    run(work)


def test_an_address_in_use_is_said_and_nothing_is_left_open() -> None:
    async def work() -> None:
        place = Place()
        async with opened(Place()) as port:
            with pytest.raises(OSError, match="in use"):
                await place.door.open(Address(host="127.0.0.1", port=port))
        await place.door.close()

    run(work)


def test_a_relay_carries_both_ways_and_ends_when_one_side_does() -> None:
    async def work() -> None:
        (caller, outer), (inner, server) = socket.socketpair(), socket.socketpair()
        with caller, outer, inner, server:
            for each in (caller, outer, inner, server):
                each.setblocking(False)
            carrying = asyncio.create_task(relay(outer, inner))
            loop, much = asyncio.get_running_loop(), bytes(range(256)) * 8000
            for source, target in ((caller, server), (server, caller)):
                sending = asyncio.create_task(loop.sock_sendall(source, much))
                came = b""
                while len(came) < len(much):
                    came += await loop.sock_recv(target, 1 << 16)
                await sending
                assert came == much
            await loop.sock_sendall(server, b"the last words")
            server.shutdown(socket.SHUT_WR)
            await carrying
            assert await loop.sock_recv(caller, 100) == b"the last words"

    run(work)
