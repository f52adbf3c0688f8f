"""The client's end of the network: channels that look like gRPC's, and one call of an operator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from grpc import aio

from simulation.net.network import END, Call, Network
from simulation.processes import Process

EOF = aio.EOF  # type: ignore[attr-defined]  # public, but missing in the stubs


class MemoryChannels:
    """`worker.rpc.channels.Channels` over a `Network`."""

    def __init__(self, network: Network, peer: str, process: Process) -> None:
        self._network = network
        self._peer = peer
        self._process = process

    def open(self, _target: str) -> MemoryChannels:
        """A channel; there is only one coordinator."""
        return self

    def stream_stream(self, path: str) -> Callable[..., Call]:
        """Calls with a stream each way."""
        return lambda metadata=(): self._call(path, metadata)

    def unary_stream(self, path: str) -> Callable[..., Call]:
        """Calls with one message up: on the wire, a stream of one."""

        def begin(request: bytes, metadata: Any = ()) -> Call:
            call = self._call(path, metadata)
            self._network.passes(call, True, request)
            call.to_server(END, self._network.latency())
            return call

        return begin

    def _call(self, path: str, metadata: Any) -> Call:
        self._process.alive()
        return self._network.call(path, self._peer, tuple(metadata))

    async def close(self) -> None:
        """Connections are the network's."""

    def stamp(self) -> object:
        """Nothing is ever renewed."""
        return None

    async def explained(self, _target: str, error: Any) -> Any:
        """There is no TLS that could be the cause."""
        return error


async def ask(network: Network, method: str, request: Any, reply: type[Any], peer: str = "operator") -> Any:
    """A unary call of the operator's: its reply, or the code and reason of its refusal as a string."""
    call = network.call(f"/ssd_proto.v1.Operator/{method}", peer)
    with contextlib.suppress(asyncio.InvalidStateError):
        await call.write(request.SerializeToString())
        await call.done_writing()
    try:
        raw = await call.read()
    except aio.AioRpcError as error:
        return f"{error.code().name.lower()}: {error.details()}"
    return "no reply" if raw is EOF else reply.FromString(raw)
