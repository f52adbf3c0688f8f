"""The room of unfinished hellos: what each certificate may take of it, and what is always left for the next one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coordinator.errors import ClientFault, Reason
from coordinator.rpc.federation import hello as hellos
from coordinator.rpc.federation.hello import (
    MAX_UNFINISHED,
    MAX_UNFINISHED_PER_HOLDER,
    OWN_BYTES,
    ROOM_BYTES,
    HelloReader,
)
from ssd_proto.v1 import federation_pb2 as pb


class Call:
    """A call whose peer sends what the test puts there."""

    def __init__(self, *parts: pb.Hello) -> None:
        self.up: asyncio.Queue[Any] = asyncio.Queue()
        for part in parts:
            self.say(part)

    def say(self, part: pb.Hello) -> None:
        self.up.put_nowait(pb.WorkerMessage(hello=part))

    async def read(self) -> Any:
        return await self.up.get()


def part(clients: int, length: int = 6, *, more: bool = True) -> pb.Hello:
    named = [pb.HostedClient(client=f"{index:0{length}d}") for index in range(clients)]
    return pb.Hello(worker="w", clients=named, more=more)


def play(scene: Callable[[HelloReader], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(HelloReader()), 60))


async def begun(reader: HelloReader, call: Call, holder: str | None = None) -> asyncio.Task[pb.Hello]:
    task = asyncio.ensure_future(reader.read(call, 1000.0, holder))
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return task


async def over(*tasks: asyncio.Task[pb.Hello]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClientFault):
            await task


async def refused(reader: HelloReader, call: Call, reason: Reason, holder: str | None = None) -> None:
    with pytest.raises(ClientFault) as fault:
        await reader.read(call, 1000.0, holder)
    assert fault.value.reason is reason


def test_a_certificate_has_so_many_unfinished_and_others_are_none_the_worse() -> None:
    async def scene(reader: HelloReader) -> None:
        tasks = [await begun(reader, Call(part(0)), "mallory") for _ in range(MAX_UNFINISHED_PER_HOLDER)]
        await refused(reader, Call(part(0, more=False)), Reason.NO_ROOM, "mallory")
        assert (await reader.read(Call(part(3, more=False)), 10.0, "alpha")).worker == "w"
        await over(tasks[0])
        assert (await reader.read(Call(part(0, more=False)), 10.0, "mallory")).worker == "w"
        await over(*tasks)

    play(scene)


def test_without_certificates_there_are_so_many_in_all() -> None:
    async def scene(reader: HelloReader) -> None:
        tasks = [await begun(reader, Call()) for _ in range(MAX_UNFINISHED)]
        await refused(reader, Call(part(0, more=False)), Reason.NO_ROOM)
        await over(*tasks)
        assert await reader.read(Call(part(0, more=False)), 10.0)

    play(scene)


def test_however_many_large_ones_there_are_another_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hellos, "ROOM_BYTES", 1 << 20)
    monkeypatch.setattr(hellos, "OWN_BYTES", 1 << 10)

    async def scene(reader: HelloReader) -> None:
        greedy = []
        for number in range(6):
            call = Call()
            task = await begun(reader, call, f"greedy-{number}")
            while not task.done():
                call.say(part(20))
                await asyncio.sleep(0.001)
            greedy.append(task)
            # A refused one gives back what it had: the next is begun by somebody who knows when to stop.
            calm = Call()
            task = await begun(reader, calm, f"calm-{number}")
            for _ in range(40):
                calm.say(part(20))
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            greedy.append(task)
        for task in greedy:
            if task.done():
                assert isinstance(task.exception(), ClientFault)
        assert any(not task.done() for task in greedy)
        assert len((await reader.read(Call(part(40, more=False)), 10.0, "alpha")).clients) == 40
        await over(*greedy)

    play(scene)


def test_a_small_one_needs_none_of_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hellos, "ROOM_BYTES", 0)

    async def scene(reader: HelloReader) -> None:
        assert len((await reader.read(Call(part(500, more=False)), 10.0)).clients) == 500
        await refused(reader, Call(part(2000)), Reason.NO_ROOM)

    play(scene)


def test_what_entries_take_in_memory_counts_and_not_what_they_take_on_the_wire() -> None:
    """Two bytes each on the wire, some ninety in memory."""
    empty = pb.Hello(worker="w", more=True)
    for _ in range(80_000):
        empty.held_updates.add()
    assert empty.ByteSize() < 200_000

    async def scene(reader: HelloReader) -> None:
        task = await begun(reader, Call(empty))
        assert reader._bytes > 30 * empty.ByteSize()
        await over(task)
        assert reader._bytes == 0

    play(scene)


def test_the_largest_hello_there_may_be_finds_room() -> None:
    """100,000 clients with names of 128 characters and two updates held for each."""
    taken = hellos.MAX_HELLO_BYTES + 100_000 * hellos.CLIENT_BYTES + hellos.MAX_HELD * hellos.HELD_BYTES
    assert taken - OWN_BYTES <= ROOM_BYTES / 2


def test_one_that_takes_too_long_is_given_up_whatever_the_heartbeats_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hellos, "HELLO_SECONDS", 0.01)

    async def scene(reader: HelloReader) -> None:
        await refused(reader, Call(part(0)), Reason.SILENT)

    play(scene)
