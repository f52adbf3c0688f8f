"""What every handler needs: reading a message without waiting for ever, and ending a call with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from coordinator.errors import ClientFault, Reason
from coordinator.ports.identity import Identity
from coordinator.rpc.serving.status import REASON_KEY, SESSION_KEY, TABLE
from coordinator.rpc.serving.wire import ChunkPart
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import Call, Tracing
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import repeatable
from ssd.digest import CHUNK_BYTES
from ssd_wire.errors import Malformed

log = logging.getLogger(__name__)
P = TypeVar("P")
R = TypeVar("R")

Context = Any
"""grpc.aio.ServicerContext; its stubs miss half of what is used here."""
Handler = Any
"""grpc.GenericRpcHandler; generic in the stubs, not at run time."""
EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # public, but missing in the stubs


def client_fault(malformed: Malformed) -> ClientFault:
    """The peer's fault that a malformed message is, with the same reason and sentence."""
    return ClientFault(Reason(malformed.reason), malformed.detail)


def parsed(convert: Callable[[P], R], message: P) -> R:
    """What a peer's protobuf message says, in the records of `ssd_wire.messages`.

    Raises:
        ClientFault: the message says less, or something else, than its contract asks.
    """
    try:
        return convert(message)
    except Malformed as malformed:
        raise client_fault(malformed) from malformed


def well_formed(message: Any) -> Any:
    """The message; None at the end of the stream.

    Raises:
        ClientFault: it could not be parsed, or is over the size limit.
    """
    if message is EOF:
        return None
    if isinstance(message, Malformed):
        raise client_fault(message)
    assert isinstance(message, Message | ChunkPart)
    return message


def check_offset(offset: int, size: int) -> None:
    """Refuse to stream a blob of `size` bytes from anywhere but the beginning of a chunk.

    Raises:
        ClientFault: reason bad_offset.
    """
    if offset % CHUNK_BYTES or offset > size:
        raise ClientFault(
            Reason.BAD_OFFSET, f"offsets are multiples of {CHUNK_BYTES} up to {size}, not {offset}"
        )


LAST_WORDS_SECONDS = 5.0
"""How long the end of a stream may take to reach a peer."""
LEAST_PROGRESS_BYTES = 64 << 10
"""What a transfer must move on by within the time a stall may take."""


class Stall:
    """Notices a transfer that does not move on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._moved = 0
        self._until = asyncio.get_running_loop().time() + seconds

    def moved(self, nbytes: int) -> None:
        """Some bytes arrived, or were taken by the peer."""
        self._moved += nbytes
        if self._moved >= LEAST_PROGRESS_BYTES:
            self._moved = 0
            self._until = asyncio.get_running_loop().time() + self._seconds

    @property
    def remaining(self) -> float:
        """Seconds left to move on in."""
        return max(0.0, self._until - asyncio.get_running_loop().time())

    def fault(self) -> ClientFault:
        """What to end the call with."""
        return ClientFault(
            Reason.STALLED,
            f"the transfer moved on by less than {LEAST_PROGRESS_BYTES >> 10} KiB in {self._seconds:g} s; come again",
        )


class Unread(asyncio.CancelledError):
    """The peer reads neither the replies nor the status of a call: nothing more can be said to it.

    Args:
        status: still on its way; gets done when the peer reads, or its connection is gone.
    """

    def __init__(self, status: asyncio.Future[Any]) -> None:
        super().__init__()
        self.status = status
        # Whatever becomes of it, nobody is left to tell.
        status.add_done_callback(lambda done: done.cancelled() or done.exception())


async def done_within(doing: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Whether something got done in time; otherwise it is cancelled. What it raises is raised.

    `asyncio.wait_for` would leave what it waited for in a cycle of exception, traceback and task, and with it the call and
    its unread reply, until the garbage collector comes by.
    """
    task = asyncio.ensure_future(doing)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.wait({task})
        # It may have got done, or failed, in the last moment.
        if not task.cancelled():
            task.result()
            return True
        return False
    finally:
        task.cancel()
        del task


@contextlib.contextmanager
def ending_with_its_peer() -> Iterator[None]:
    """Turns the failure of a write to a call that the peer ended into the cancellation of its handler.

    gRPC cancels a handler whose peer is gone, but a write that comes before the cancellation, or while it is held back,
    finds the call over and raises `InvalidStateError` or `InternalError`. Both mean one thing: nobody is left to answer.

    Raises:
        asyncio.CancelledError: the peer is gone.
    """
    try:
        yield
    except (asyncio.InvalidStateError, grpc.aio.InternalError):
        raise asyncio.CancelledError from None


class PatientContext:
    """A call whose every reply must be taken by the peer within a time; otherwise it is as the call it wraps.

    Args:
        context: the call.
        seconds: how long one reply may wait for the peer to read.
    """

    def __init__(self, context: Context, seconds: float) -> None:
        self._context = context
        self._seconds = seconds
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Begin the answer.

        Raises:
            asyncio.CancelledError: the peer is gone.
        """
        self._begun = True
        with ending_with_its_peer():
            await self._context.send_initial_metadata(metadata)

    async def write(self, message: Any) -> None:
        """Send a reply.

        Raises:
            ClientFault: reason stalled; the reply was not read.
            asyncio.CancelledError: the peer is gone.
        """
        if not self._begun:
            # Alone, so that a status after a reply that is not read never has to bring it a second time.
            await self.send_initial_metadata(())
        with ending_with_its_peer():
            written = await done_within(self._context.write(message), self._seconds)
        if not written:
            detail = f"a reply was not read within {self._seconds:g} s; come again"
            raise ClientFault(Reason.STALLED, detail)


async def send(context: Context, message: Any, stall: Stall) -> None:
    """Write to a peer that may not be reading.

    Raises:
        ClientFault: reason stalled.
        asyncio.CancelledError: the peer is gone.
    """
    with ending_with_its_peer():
        written = await done_within(context.write(message), stall.remaining)
    if not written:
        raise stall.fault()


async def read(
    context: Context, ends: Collection[asyncio.Future[Any]] = (), timeout: float | None = None
) -> tuple[bool, Any]:
    """The next message up, unless one of `ends` is done first or `timeout` seconds pass: (whether it came, it).

    Raises:
        ClientFault: as `well_formed`.
    """
    reading = asyncio.ensure_future(context.read())
    try:
        await asyncio.wait({reading, *ends}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return (True, well_formed(reading.result())) if reading.done() else (False, None)
    finally:
        reading.cancel()


def session_of(sessions: SessionTable, identity: Identity, context: Context) -> Session:
    """The session a data call belongs to: named by its token, and opened by the same caller.

    Raises:
        ClientFault: reason no_session or identity_mismatch.
    """
    metadata: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    tokens = [value for key, value in metadata if key == SESSION_KEY]
    if len(tokens) != 1 or not isinstance(tokens[0], str):
        raise ClientFault(Reason.NO_SESSION, f"every data call carries the metadata key {SESSION_KEY} once")
    session = sessions.by_token(tokens[0])
    if identity.subject(context.auth_context()) != session.subject:
        raise ClientFault(Reason.IDENTITY_MISMATCH, "the session token is another worker's")
    return session


def traced(tracing: Tracing, session: Session, method: str, context: Context) -> AbstractContextManager[Call]:
    """The span of a data call of a worker, if it is traced; what it raises is the span's error."""
    metadata: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return tracing.call(method, session.worker, len(session.clients), metadata)


def _holder(context: Context) -> str:
    """The name in the caller's certificate, empty without one; only to tell callers apart in the log."""
    names = context.auth_context().get("peer_uri", ())
    return str(names[0].decode("utf-8", "replace"))[:200] if names else ""


async def refuse(metrics: CoordinatorMetrics, context: Context, call: str, fault: ClientFault) -> None:
    """Count and log a refusal, then end the call with its status; the reason travels in trailing metadata.

    Raises:
        asyncio.CancelledError: the peer is gone.
        Unread: the peer does not take the status.
    """
    metrics.refused(call, fault.reason)
    holder, reason = _holder(context), fault.reason.value
    who = {"holder": holder} if holder else {}
    fields = {"call": call, "reason": reason, "detail": fault.detail, **who}
    repeatable(log, logging.INFO, "refused", (holder or "anybody", reason), **fields)
    status = asyncio.ensure_future(
        context.abort(
            TABLE[fault.reason].code, fault.detail, trailing_metadata=((REASON_KEY, fault.reason.value),)
        )
    )
    try:
        await asyncio.wait({status}, timeout=LAST_WORDS_SECONDS)
    except asyncio.CancelledError:
        status.cancel()
        raise
    if not status.done():
        # It waits behind what the peer does not read. The handler ends; the stream ends with its connection.
        raise Unread(status)
    try:
        status.result()
    except asyncio.InvalidStateError:
        return
    except grpc.aio.InternalError:
        # The peer went away in the meantime: nobody is left to tell.
        raise asyncio.CancelledError from None
