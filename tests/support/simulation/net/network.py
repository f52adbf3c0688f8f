"""The network between workers and the coordinator, in memory: gRPC calls as the product makes and serves them.

Production code stands on both sides: `worker.rpc.client.GrpcTransport` calls, handlers made by the coordinator's
servicers answer, through its interceptors. What crosses are the serialised bytes. Within one direction of a call
order is kept, as HTTP/2 keeps it; calls overtake each other.

A `Fault` waits for a certain message and does something to it: drops it with the connection, delays it, doubles it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import grpc
from grpc import aio

from simulation.net.kinds import kind_of
from simulation.processes import Process
from simulation.virtual_time import VirtualLoop

EOF = aio.EOF  # type: ignore[attr-defined]  # public, but missing in the stubs
LATENCY_SECONDS = 0.005
KEEPALIVE_SECONDS = 30.0
"""After so long either end of a connection notices that nothing comes through any more."""
UNREACHABLE = "the coordinator cannot be reached"
END = object()
Status = tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]


class Act(StrEnum):
    """What a fault does to its message."""

    CUT = "cut"
    """It is lost, and both ends learn at once that the connection is."""
    CUT_AFTER = "cut_after"
    """It arrives, and is the last that does."""
    SILENCE = "silence"
    """It is lost, and so is everything after it; either end notices when its patience is over."""
    DELAY = "delay"
    """It, and with it everything behind it, comes later."""
    DOUBLE = "double"
    """It comes twice."""


@dataclass
class Fault:
    """Waits for the `count`-th message that fits from when it is armed."""

    act: Act
    worker: str
    method: str = ""
    """The call's name without its service; empty: any."""
    up: bool = True
    """From the worker to the coordinator."""
    kind: str = ""
    """See `simulation.kinds`; empty: any."""
    count: int = 1
    seconds: float = 0.0

    def meets(self, call: Call, up: bool, kind: str) -> bool:
        """Whether this is the message it waits for."""
        fits = self.worker == call.peer and self.up is up
        if not fits or self.method not in ("", call.method) or self.kind not in ("", kind):
            return False
        self.count -= 1
        return self.count == 0


@dataclass(frozen=True)
class Passed:
    """A message that was sent, whether or not it arrived."""

    at: float
    call: int
    method: str
    peer: str
    up: bool
    kind: str
    message: Any
    fate: str
    """`arrives`, or what a fault did."""


class _Direction:
    """Messages on their way, in order."""

    def __init__(self, loop: VirtualLoop, sink: Callable[[Any], None]) -> None:
        self._loop = loop
        self._sink = sink
        self._items: deque[Any] = deque()
        self._last = 0.0
        self.cut = False

    def send(self, item: Any, seconds: float) -> None:
        self._last = max(self._last, self._loop.time() + seconds)
        self._items.append(item)
        self._loop.call_at(self._last, self._arrive)

    def _arrive(self) -> None:
        item = self._items.popleft()
        if not self.cut:
            self._sink(item)


class Call:
    """One RPC; the client's object. `aio.Call` as far as `GrpcTransport` uses it."""

    def __init__(self, network: Network, number: int, path: str, peer: str, metadata: Any) -> None:
        self.number = number
        self.path = path
        self.method = path.rpartition("/")[2]
        self.peer = peer
        self.metadata = metadata
        self._network = network
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._status: asyncio.Future[Status] = network.loop.create_future()
        self._down = _Direction(network.loop, self._take)
        self._up: _Direction | None = None
        self._waiting: list[Any] = []
        self.server: ServerSide | None = None

    # -------------------------------------------------------------------------------------------- the client's side

    async def write(self, raw: bytes) -> None:
        """Send a message."""
        if self._status.done():
            raise asyncio.InvalidStateError("the call is over")
        self._network.passes(self, True, raw)
        await asyncio.sleep(0)

    async def done_writing(self) -> None:
        """Say that no more follows."""
        self.to_server(END, self._network.latency())

    async def read(self) -> Any:
        """The next message; EOF at the good end.

        Raises:
            AioRpcError: the call ended badly.
        """
        item = await self._arrived.get()
        if item is not END:
            return item
        self._arrived.put_nowait(END)
        code, details, _ = self._status.result()
        if code is grpc.StatusCode.OK:
            return EOF
        raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details)

    def cancel(self) -> None:
        """The caller loses interest."""
        if not self._status.done():
            self._end((grpc.StatusCode.CANCELLED, "cancelled by the caller", ()))
            self._tell_server_gone(self._network.latency())

    async def code(self) -> grpc.StatusCode:
        """The status, when the call is over."""
        return (await asyncio.shield(self._status))[0]

    async def details(self) -> str:
        """What the status says."""
        return (await asyncio.shield(self._status))[1]

    async def trailing_metadata(self) -> Any:
        """What came with the status."""
        return (await asyncio.shield(self._status))[2]

    # ------------------------------------------------------------------------------------------------- in between

    def begin(self, server: ServerSide | None) -> None:
        """Connect the two ends; None: nobody listens."""
        if server is None:
            self._network.later(LATENCY_SECONDS, self._end, _broken(UNREACHABLE))
            return
        self.server = server
        self._up = _Direction(self._network.loop, server.take)

    def to_server(self, item: Any, seconds: float) -> None:
        if self._up is not None:
            self._up.send(item, seconds)

    def to_client(self, item: Any, seconds: float) -> None:
        self._down.send(item, seconds)

    def cut(self, *, client_after: float, server_after: float) -> None:
        """Nothing comes through from now on; each end learns of it after so many seconds."""
        self._down.cut = True
        if self._up is not None:
            self._up.cut = True
        self._network.later(client_after, self._end, _broken("the connection is gone"))
        self._tell_server_gone(server_after)

    def _tell_server_gone(self, seconds: float) -> None:
        if self.server is not None:
            self._network.later(seconds, self.server.gone)

    def _take(self, item: Any) -> None:
        if self._status.done():
            return
        if isinstance(item, tuple):
            self._end(item)
        else:
            self._arrived.put_nowait(item)

    def _end(self, status: Status) -> None:
        if not self._status.done():
            self._status.set_result(status)
            self._arrived.put_nowait(END)


def _broken(detail: str) -> Status:
    return grpc.StatusCode.UNAVAILABLE, detail, ()


class ServerSide:
    """The handler's context. `grpc.aio.ServicerContext` as far as the coordinator uses it."""

    def __init__(self, network: Network, call: Call, process: Process) -> None:
        self._network = network
        self._call = call
        self._process = process
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._ended = False
        self._parse: Callable[[bytes], Any] = bytes
        self._pack: Callable[[Any], bytes] = bytes
        self._task = process.spawn(self._serve())

    # ------------------------------------------------------------------------------------------- the handler's side

    async def read(self) -> Any:
        """The next message, EOF when no more follows."""
        item = await self._arrived.get()
        if item is END:
            self._arrived.put_nowait(END)
            return EOF
        return self._parse(item)

    async def write(self, message: Any) -> None:
        """Send a message."""
        if self._ended:
            raise asyncio.InvalidStateError("the call is over")
        self._network.passes(self._call, False, self._pack(message))
        await asyncio.sleep(0)

    async def send_initial_metadata(self, _: Any) -> None:
        """Nothing that anybody here looks at."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> None:
        """End the call with a status."""
        if self._ended:
            raise asyncio.InvalidStateError("the call is over")
        self._finish((code, details, tuple(trailing_metadata)))
        raise aio.AbortError("aborted")

    def invocation_metadata(self) -> Any:
        """What the caller sent along."""
        return self._call.metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        """Whom the transport has recognised, for `simulation.coordinator.NamedPeers`."""
        return {"peer": [self._call.peer.encode()]}

    # ------------------------------------------------------------------------------------------------- in between

    def take(self, item: Any) -> None:
        self._arrived.put_nowait(item)

    def gone(self) -> None:
        """The caller went away: the handler is cancelled, as gRPC does it."""
        if not self._ended:
            self._ended = True
            self._task.cancel()

    def _finish(self, status: Status) -> None:
        if not self._ended:
            self._ended = True
            if not self._process.dead:
                self._network.ended(self._call, status)

    async def _serve(self) -> None:
        try:
            handler = await self._network.handler(self._call)
            self._parse, self._pack = handler.request_deserializer, handler.response_serializer
            answer = handler.stream_stream(None, self)
            if isinstance(answer, Awaitable):
                await answer
            else:
                async for message in answer:
                    await self.write(message)
            self._finish((grpc.StatusCode.OK, "", ()))
        except aio.AbortError:
            pass
        except asyncio.CancelledError:
            self._finish((grpc.StatusCode.CANCELLED, "", ()))
        except Exception as error:  # noqa: BLE001 - a defect of the product, told at the end of the run
            self._network.defects.append(f"the handler of {self._call.method} failed: {error!r}")
            self._finish((grpc.StatusCode.UNKNOWN, repr(error), ()))


@dataclass
class Listener:
    """What a coordinator serves."""

    process: Process
    handlers: Sequence[Any]
    interceptors: Sequence[Any]

    async def find(self, details: Any) -> Any:
        """The handler of a method, behind the interceptors."""

        async def innermost(wanted: Any) -> Any:
            found = (handler.service(wanted) for handler in self.handlers)
            return next(each for each in found if each is not None)

        continuation: Callable[[Any], Awaitable[Any]] = innermost
        for interceptor in reversed(self.interceptors):
            continuation = _behind(interceptor, continuation)
        return await continuation(details)


def _behind(interceptor: Any, inner: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    return lambda details: interceptor.intercept_service(inner, details)


@dataclass
class Network:
    """Who listens, what is on its way, and what goes wrong."""

    loop: VirtualLoop
    jitter: random.Random
    jitter_seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    listener: Listener | None = None
    observers: list[Callable[[Passed], None]] = field(default_factory=list)
    _calls: dict[int, Call] = field(default_factory=dict)
    _numbers: int = 0

    def call(self, path: str, peer: str, metadata: Any = ()) -> Call:
        """Begin a call to whoever listens now."""
        self._numbers += 1
        call = Call(self, self._numbers, path, peer, metadata)
        if self.listener is None or self.listener.process.dead:
            call.begin(None)
            return call
        self._calls[call.number] = call
        call.begin(ServerSide(self, call, self.listener.process))
        return call

    async def handler(self, call: Call) -> Any:
        """What the listener serves a call with."""
        assert self.listener is not None
        return await self.listener.find(SimpleNamespace(method=call.path, invocation_metadata=call.metadata))

    def latency(self) -> float:
        """Of the next message, seconds."""
        return LATENCY_SECONDS + self.jitter.random() * self.jitter_seconds

    def later(self, seconds: float, work: Callable[..., None], *args: Any) -> None:
        """Do something when so much time has passed."""
        self.loop.call_later(seconds, work, *args)

    def passes(self, call: Call, up: bool, raw: bytes) -> None:
        """Put a message on its way, unless a fault waits for it."""
        kind, message = kind_of(call.method, up, raw)
        fault = next((each for each in self.faults if each.meets(call, up, kind)), None)
        seconds = self.latency()
        fate = "arrives"
        if fault is not None:
            self.faults.remove(fault)
            fate = fault.act.value
        self._note(Passed(self.loop.time(), call.number, call.method, call.peer, up, kind, message, fate))
        send = call.to_server if up else call.to_client
        match None if fault is None else fault.act:
            case Act.CUT:
                call.cut(client_after=seconds, server_after=seconds)
            case Act.SILENCE:
                call.cut(client_after=KEEPALIVE_SECONDS, server_after=2 * KEEPALIVE_SECONDS)
            case Act.CUT_AFTER:
                send(raw, seconds)
                self.later(1.01 * seconds, lambda: call.cut(client_after=0.0, server_after=0.0))
            case Act.DELAY:
                assert fault is not None
                send(raw, seconds + fault.seconds)
            case Act.DOUBLE:
                send(raw, seconds)
                send(raw, seconds)
            case None:
                send(raw, seconds)

    def ended(self, call: Call, status: Status) -> None:
        """A handler is done."""
        code, details, metadata = status
        told = f"{code.name.lower()}{''.join(f' {value}' for _, value in metadata)}"
        self._note(
            Passed(self.loop.time(), call.number, call.method, call.peer, False, "status", told, "arrives")
        )
        call.to_client((code, details, metadata), self.latency())

    def part(self, process: Process) -> None:
        """A process has died: whoever talked to it is told at once, as the kernel closes its sockets."""
        if self.listener is not None and self.listener.process is process:
            self.listener = None
            for call in self._calls.values():
                call.cut(client_after=LATENCY_SECONDS, server_after=0.0)
            self._calls.clear()

    def hang_up(self, peer: str) -> None:
        """A worker's process has died."""
        for call in self._calls.values():
            if call.peer == peer:
                call.cut(client_after=0.0, server_after=LATENCY_SECONDS)

    def _note(self, passed: Passed) -> None:
        self.passed.append(passed)
        for observer in self.observers:
            observer(passed)
