"""The coordinator over grpc.aio: the control stream, blobs down, updates up. `worker.ports.Transport`.

Rules it keeps:

- Control and data use connections of their own, so a megabyte on its way never delays a heartbeat.
- A call that ends without an answer raises `LinkBroken` with the coordinator's `ssd-reason`; whether to try again is
  the caller's business, the channel's own reconnect backoff is kept short.
- Chunks cross as raw bytes (`worker.rpc.wire`); hashing and disk happen on a thread beside the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire import from_proto, to_proto
from ssd_wire.errors import Malformed
from ssd_wire.messages import BlobRef, Capabilities, Down, Hello, Up
from ssd_wire.uploads import Continue, Go, Hold, UploadFate, Verdict
from worker.core.effects import OpenLink
from worker.errors import BlobUnavailable, CoordinatorFault, LinkBroken, SessionEnded
from worker.ports import BlobSink, DataAccess, UploadSource
from worker.rpc import wire
from worker.rpc.channels import Channels
from worker.telemetry.tracing import NoTracing, Tracing

M = TypeVar("M", bound=Message)
R = TypeVar("R")
EOF = aio.EOF  # type: ignore[attr-defined]  # public, but missing in the stubs
_SERVICE = "/ssd_proto.v1.Federation/"
MAX_MESSAGE_BYTES = 64 << 20
"""Room for the welcome of a worker with 100,000 clients, and for the chunk list of any blob."""
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.name.lower()
_CHUNKS_IN_HAND = 8
"""Received chunks that may wait for the hashing thread."""
_SESSION_REASONS = frozenset({"no_session", "fenced", "silent"})
_DISCARD_REASONS = frozenset(
    {
        "duplicate",
        "stale_attempt",
        "too_late",
        "not_needed",
        "wrong_round",
        "wrong_base",
        "wrong_task",
        "draining",
    }
)
_RETRY_REASONS = frozenset(
    {"truncated", "corrupt_chunk", "bad_offset", "stalled", "no_room", "storage", "internal"}
)
_RETRY_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.OK,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Greeting:
    """What the hello says of the worker itself."""

    worker: str
    instance: str
    build: str
    evaluates: bool
    labels: bool
    """The clients' images have labels."""
    client_tests: bool
    """Clients have test images of their own."""
    device: Callable[[], tuple[str, int]]
    """The device's kind and memory, asked anew for every hello."""

    def hello(self, opening: OpenLink) -> Hello:
        """The whole hello."""
        device, memory = self.device()
        return Hello(
            worker=self.worker,
            instance=self.instance,
            build=self.build,
            capabilities=Capabilities(
                evaluates=self.evaluates,
                device=device,
                device_memory=memory,
                labels=self.labels,
                client_tests=self.client_tests,
            ),
            run_id=opening.run_id,
            clients=opening.clients,
            versions_held=opening.versions_held,
            held_updates=opening.held_updates,
            newest=opening.newest,
        )


class GrpcTransport:
    """One coordinator at one address.

    `count(direction, bytes)` is told of every body byte moved, for metrics.
    """

    def __init__(
        self,
        target: str,
        channels: Channels,
        greeting: Greeting,
        count: Callable[[str, int], None],
        tracing: Tracing | None = None,
    ) -> None:
        self._target = target
        self._channels = channels
        self._greeting = greeting
        self._count = count
        self._tracing: Tracing = tracing or NoTracing()
        self._data: dict[str, _DataChannel] = {}
        self._turn = 0
        self._stamp = channels.stamp()

    @asynccontextmanager
    async def attend(self, opening: OpenLink) -> AsyncIterator[GrpcStream]:
        """Open the control stream and say hello; leaving the context ends the stream."""
        parts = to_proto.hello(self._greeting.hello(opening))
        # A channel of its own for every try: no backoff state and no resolved address outlives a failure.
        channel = self._channels.open(self._target)
        call = channel.stream_stream(_SERVICE + "Attend")()
        stream = GrpcStream(call)
        try:
            for part in parts:
                await stream.write(pb.WorkerMessage(hello=part).SerializeToString())
            yield stream
        except LinkBroken as error:
            if stream.answered or error.reason != _UNAVAILABLE:
                raise
            raise await self._channels.explained(self._target, error) from error
        finally:
            call.cancel()
            await channel.close()

    async def fetch(self, access: DataAccess, blob: BlobRef, sink: BlobSink) -> None:
        """Fill the sink from where it stands."""
        with self._tracing.call("FetchBlob", access.parent) as span:
            span.say({"ssd.offset": sink.received, "ssd.bytes": blob.size - sink.received})
            async with self._channel(access) as channel:
                call = channel.unary_stream(_SERVICE + "FetchBlob")(
                    pb.FetchBlobRequest(digest=blob.digest, offset=sink.received).SerializeToString(),
                    metadata=(*_metadata(access), *span.metadata),
                )
                await self._receive(call, sink)
            if sink.received < blob.size:
                raise LinkBroken("truncated", f"{sink.received} of {blob.size} bytes of a blob arrived")

    async def _receive(self, call: Any, sink: BlobSink) -> None:
        loop = asyncio.get_running_loop()
        pending: deque[asyncio.Future[None]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
            try:
                first = True
                async for part in _parts(call):
                    self._count("down", len(part.data))
                    if first:
                        await loop.run_in_executor(pool, sink.expect, part.size, part.chunk_digests)
                        first = False
                        if not part.data:
                            continue
                    pending.append(loop.run_in_executor(pool, sink.put, part.offset, part.data))
                    if len(pending) > _CHUNKS_IN_HAND:
                        await pending.popleft()
                await asyncio.gather(*pending)
            finally:
                for future in pending:
                    future.cancel()
                call.cancel()

    async def submit(
        self, access: DataAccess, source: UploadSource, on_hold: Callable[[bool], None]
    ) -> Verdict:
        """One upload call, to the verdict."""
        with self._tracing.call("SubmitUpdate", access.parent) as span:
            span.say({"ssd.bytes": source.envelope.body_size})
            async with self._channel(access) as channel:
                metadata = (*_metadata(access), *span.metadata)
                call = channel.stream_stream(_SERVICE + "SubmitUpdate")(metadata=metadata)
                upload = _Upload(call, source, on_hold, self._count)
                try:
                    verdict = await upload.run()
                finally:
                    call.cancel()
            span.say({"ssd.outcome": verdict.fate.value})
            return verdict

    async def close(self) -> None:
        """Close the data connections."""
        for held in self._data.values():
            await held.channel.close()
        self._data.clear()

    @asynccontextmanager
    async def _channel(self, access: DataAccess) -> AsyncIterator[Any]:  # its stubs demand what is optional
        targets = access.endpoints or (self._target,)
        self._turn += 1
        target = targets[self._turn % len(targets)]
        await self._retire_old()
        if target not in self._data:
            self._data[target] = _DataChannel(self._channels.open(target))
        held = self._data[target]
        held.calls += 1
        try:
            yield held.channel
        finally:
            held.calls -= 1
            if held.retired and held.calls == 0:
                await held.channel.close()

    async def _retire_old(self) -> None:
        """After a renewal calls open connections of their own; those under way end on the connections they have."""
        stamp = self._channels.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        retired, self._data = list(self._data.values()), {}
        for held in retired:
            held.retired = True
            if held.calls == 0:
                await held.channel.close()


@dataclass(slots=True)
class _DataChannel:
    """A connection for data, and who is using it."""

    channel: Any
    calls: int = 0
    retired: bool = False


class GrpcStream:
    """An open control stream. `worker.ports.Stream`."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._writing = asyncio.Lock()
        self.answered = False
        """Whether anything ever came."""

    async def messages(self) -> AsyncIterator[Down]:
        """Messages down until the stream ends, which raises."""
        while (raw := await _read(self._call)) is not None:
            self.answered = True
            message = _parsed(pb.CoordinatorMessage, raw, from_proto.down)
            if message is not None:
                yield message
        raise await _broken(self._call)

    async def send(self, message: Up) -> None:
        """Send one message."""
        await self.write(to_proto.up(message).SerializeToString())

    async def write(self, raw: bytes) -> None:
        """Send bytes; concurrent writers take turns, as grpc demands."""
        async with self._writing:
            try:
                await self._call.write(raw)
            except (aio.AioRpcError, asyncio.InvalidStateError) as error:
                raise await _broken(self._call) from error
            except asyncio.CancelledError:
                _raise_if_cancelled()
                raise await _broken(self._call) from None


class _Upload:
    """One SubmitUpdate call: a writer that obeys Hold and Go, and a reader that waits for the verdict."""

    def __init__(
        self,
        call: Any,
        source: UploadSource,
        on_hold: Callable[[bool], None],
        count: Callable[[str, int], None],
    ) -> None:
        self._call = call
        self._source = source
        self._on_hold = on_hold
        self._count = count
        self._may_send = asyncio.Event()
        self._start: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> Verdict:
        """Write and read at once, until the verdict."""
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read_replies())
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            error = writer.exception() if not reader.done() and not writer.cancelled() else None
            # A call that ended is the reader's to report; anything else nobody else would notice.
            if error is not None and not isinstance(error, aio.AioRpcError | asyncio.InvalidStateError):
                raise error
            verdict = await reader
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
        if verdict is None:
            return _verdict_of_status(await _broken(self._call), await self._call.code())
        # The status follows at once; taking it lets the coordinator end the call in peace.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._call.code(), 1.0)
        return verdict

    async def _read_replies(self) -> Verdict | None:
        while (raw := await _read(self._call)) is not None:
            match _parsed(pb.UploadReply, raw, from_proto.upload_reply):
                case Verdict() as verdict:
                    return verdict
                case Hold():
                    self._on_hold(True)
                    self._may_send.clear()
                case Go():
                    self._on_hold(False)
                    self._may_send.set()
                case Continue(offset=offset) if not self._start.done():
                    self._may_send.set()
                    self._start.set_result(offset)
        return None

    async def _write(self) -> None:
        size = self._source.envelope.body_size
        envelope = pb.UploadPart(envelope=to_proto.envelope(self._source.envelope))
        await self._call.write(envelope.SerializeToString(deterministic=True))
        offset = await self._start
        if not 0 <= offset <= size:
            raise CoordinatorFault(f"asked to go on from byte {offset} of {size}")
        while offset < size:
            await self._may_send.wait()
            # A resumed upload may start inside a chunk: the first piece ends at its boundary.
            length = min(CHUNK_BYTES - offset % CHUNK_BYTES, size - offset)
            await self._call.write(wire.upload_chunk(offset, self._source.chunk(offset, length)))
            self._count("up", length)
            offset += length
        await self._call.done_writing()


def _parsed(kind: type[M], raw: bytes, convert: Callable[[M], R]) -> R:
    """What the coordinator said.

    Raises:
        CoordinatorFault: it is no message of that kind, or lacks what is needed.
    """
    try:
        return convert(from_proto.decode(kind, raw))
    except Malformed as malformed:
        raise CoordinatorFault(f"the coordinator sent {malformed.detail}") from malformed


async def _parts(call: Any) -> AsyncIterator[wire.Part]:
    while (raw := await _read(call)) is not None:
        part = wire.blob_part(raw)
        if part is None:
            raise LinkBroken("malformed_message", "a part of a blob cannot be decoded")
        yield part
    if await call.code() is not grpc.StatusCode.OK:
        broken = await _broken(call)
        if broken.reason in {"unknown_blob", "bad_offset"}:
            raise BlobUnavailable(broken.detail)
        raise broken


async def _read(call: Any) -> bytes | None:
    """The next message, or None at the end, however it ends."""
    try:
        raw = await call.read()
    except (aio.AioRpcError, asyncio.InvalidStateError):
        return None
    except asyncio.CancelledError:
        _raise_if_cancelled()
        return None
    return None if raw is EOF else raw


def _raise_if_cancelled() -> None:
    """Go on with a cancellation of this task; grpc.aio also raises `CancelledError` when the *peer* cancels."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise asyncio.CancelledError


async def _broken(call: Any) -> LinkBroken:
    """Why a call that is over ended."""
    code = await call.code()
    details = await call.details() or ""
    reason = ""
    for key, value in await call.trailing_metadata() or ():
        if key == "ssd-reason":
            reason = str(value)
    kind = (
        SessionEnded if reason in _SESSION_REASONS or code is grpc.StatusCode.UNAUTHENTICATED else LinkBroken
    )
    return kind(reason or code.name.lower(), details)


def _verdict_of_status(broken: LinkBroken, code: grpc.StatusCode) -> Verdict:
    """What a status without a verdict means for the upload.

    Raises:
        LinkBroken: it says nothing about the update itself: try again.
    """
    if isinstance(broken, SessionEnded) or broken.reason in _RETRY_REASONS:
        raise broken
    if broken.reason in _DISCARD_REASONS:
        return Verdict(fate=UploadFate.DISCARDED, reason=broken.reason, detail=broken.detail)
    if code in _RETRY_CODES:
        raise broken
    return Verdict(fate=UploadFate.REJECTED, reason=broken.reason, detail=broken.detail)


def _metadata(access: DataAccess) -> tuple[tuple[str, str], ...]:
    return (("ssd-session", access.session),)
