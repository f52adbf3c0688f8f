"""The hello, in as many messages as it takes, and the room all unfinished ones have together."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.core.registry import MAX_CLIENTS_PER_WORKER
from coordinator.errors import ClientFault, Reason
from coordinator.rpc.serving.calls import Context, read
from ssd_proto.v1 import federation_pb2 as pb

MAX_HELLO_BYTES = 48 << 20
"""100,000 clients with the longest names there can be, and an update held for each."""
MAX_HELD = 2 * MAX_CLIENTS_PER_WORKER
ROOM_BYTES = 64 << 20
MAX_UNFINISHED = 1024


class HelloReader:
    """Reads hellos. What has not been let in yet shares one budget, whoever it is from."""

    def __init__(self) -> None:
        self._bytes = 0
        self._unfinished = 0

    async def read(self, context: Context, patience: float) -> pb.Hello:
        """A whole hello, of which every message but the last says that more follows.

        Raises:
            ClientFault: silent (it took longer than `patience` seconds), wrong_order, message_too_large, bad_name, or
                no_room: too many are being read already.
        """
        if self._unfinished >= MAX_UNFINISHED:
            raise ClientFault(Reason.NO_ROOM, f"{MAX_UNFINISHED} workers are saying hello; come again")
        self._unfinished += 1
        mine = 0
        try:
            deadline = asyncio.get_running_loop().time() + patience
            hello = pb.Hello()
            more = True
            while more:
                part = await _next(context, deadline, patience)
                size = part.ByteSize()
                if self._bytes + size > ROOM_BYTES:
                    raise ClientFault(Reason.NO_ROOM, "other workers' hellos take all the room; come again")
                mine += size
                self._bytes += size
                more = part.more
                if mine == size:
                    hello = part
                else:
                    hello.clients.extend(part.clients)
                    hello.held_updates.extend(part.held_updates)
                _check(hello, mine)
            return hello
        finally:
            self._unfinished -= 1
            self._bytes -= mine


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
