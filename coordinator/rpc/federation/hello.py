"""The hello, in as many messages as it takes, and the room all unfinished ones have together.

Nobody who says hello is known to be a worker of this run yet, so what an unfinished hello takes is limited: in time, in
number per certificate, and in memory. A small hello, as nearly all are, has room of its own and waits for nobody.
Larger ones share what is left: each may have as much as it leaves free, so that however many there are, another one
still finds room.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from coordinator.core.registry import MAX_CLIENTS_PER_WORKER
from coordinator.errors import ClientFault, Reason
from coordinator.rpc.serving.calls import Context, read
from ssd_proto.v1 import federation_pb2 as pb

MAX_HELLO_BYTES = 48 << 20
"""100,000 clients with the longest names there can be, and an update held for each."""
MAX_HELD = 2 * MAX_CLIENTS_PER_WORKER
OWN_BYTES = 64 << 10
"""Memory that every unfinished hello has to itself."""
ROOM_BYTES = 192 << 20
"""Memory that larger ones share."""
MAX_UNFINISHED = 1024
MAX_UNFINISHED_PER_HOLDER = 4
"""A worker that dials again after a broken connection may have one that nobody ends any more."""
HELLO_SECONDS = 10.0
"""How long a whole hello may take at most."""
CLIENT_BYTES, HELD_BYTES = 64, 96
"""What a parsed entry takes beside its text."""


class HelloReader:
    """Reads hellos. What has not been let in yet is limited for each certificate, and for all together."""

    def __init__(self) -> None:
        self._bytes = 0
        self._unfinished = 0
        self._holders: Counter[str] = Counter()

    async def read(self, context: Context, patience: float, holder: str | None = None) -> pb.Hello:
        """A whole hello, of which every message but the last says that more follows.

        Args:
            context: the call.
            patience: seconds after which a worker counts as silent.
            holder: whose certificate it is; None where nobody proves anything.

        Raises:
            ClientFault: silent (it took longer than `patience` or `HELLO_SECONDS`), wrong_order, message_too_large,
                bad_name, or no_room: this certificate, or all, have too much under way already.
        """
        if self._unfinished >= MAX_UNFINISHED:
            raise ClientFault(Reason.NO_ROOM, f"{MAX_UNFINISHED} workers are saying hello; come again")
        if holder is not None and self._holders[holder] >= MAX_UNFINISHED_PER_HOLDER:
            most = MAX_UNFINISHED_PER_HOLDER
            raise ClientFault(Reason.NO_ROOM, f"{most} hellos of this certificate are unfinished; come again")
        self._unfinished += 1
        if holder is not None:
            self._holders[holder] += 1
        room = _Room(self)
        try:
            return await _whole(context, min(patience, HELLO_SECONDS), room)
        finally:
            self._unfinished -= 1
            self._bytes -= room.shared
            if holder is not None:
                self._holders[holder] -= 1
                if not self._holders[holder]:
                    del self._holders[holder]

    def take(self, mine: int, more: int) -> None:
        """Give a hello that has `mine` bytes of the shared room `more` of them.

        Raises:
            ClientFault: reason no_room, if it had more than it leaves free.
        """
        if more > 0 and mine + more > ROOM_BYTES - self._bytes - more:
            raise ClientFault(Reason.NO_ROOM, "hellos under way take the room; come again")
        self._bytes += more


class _Room:
    """What one hello takes of its reader's room."""

    def __init__(self, reader: HelloReader) -> None:
        self._reader = reader
        self._all = 0
        self.shared = 0
        """Beyond what it has to itself."""

    def take(self, part: pb.Hello) -> None:
        """Count a part that came; raises ClientFault."""
        self._all += part.ByteSize() + CLIENT_BYTES * len(part.clients) + HELD_BYTES * len(part.held_updates)
        more = max(0, self._all - OWN_BYTES) - self.shared
        self._reader.take(self.shared, more)
        self.shared += more


async def _whole(context: Context, patience: float, room: _Room) -> pb.Hello:
    deadline = asyncio.get_running_loop().time() + patience
    hello, size, more = pb.Hello(), 0, True
    while more:
        part = await _next(context, deadline, patience)
        room.take(part)
        more = part.more
        if size == 0:
            hello = part
        else:
            hello.clients.extend(part.clients)
            hello.held_updates.extend(part.held_updates)
        size += max(1, part.ByteSize())
        _check(hello, size)
    return hello


def _check(hello: pb.Hello, size: int) -> None:
    if len(hello.clients) > MAX_CLIENTS_PER_WORKER:
        raise ClientFault(Reason.BAD_NAME, f"a worker hosts at most {MAX_CLIENTS_PER_WORKER} clients")
    if size > MAX_HELLO_BYTES or len(hello.held_updates) > MAX_HELD:
        raise ClientFault(
            Reason.MESSAGE_TOO_LARGE,
            f"a hello has at most {MAX_HELLO_BYTES} bytes and names {MAX_HELD} held updates",
        )


async def _next(context: Context, deadline: float, patience: float) -> Any:
    came, message = await read(context, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
    if not came:
        raise ClientFault(Reason.SILENT, f"no hello came within {patience:g} s")
    if message is None or message.WhichOneof("kind") != "hello":
        raise ClientFault(Reason.WRONG_ORDER, "the first message of a stream is the hello")
    return message.hello
