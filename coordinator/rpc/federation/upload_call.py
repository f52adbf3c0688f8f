"""The call SubmitUpdate: an envelope, chunks, a verdict."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from coordinator.config.sections import LimitsSection
from coordinator.errors import ClientFault, Reason, StorageFailed
from coordinator.ports.identity import Identity
from coordinator.rpc.federation.share import CallShare
from coordinator.rpc.serving.calls import (
    LAST_WORDS_SECONDS,
    Context,
    Stall,
    ending_with_its_peer,
    parsed,
    read,
    refuse,
    session_of,
    traced,
)
from coordinator.rpc.serving.wire import ChunkPart
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import Call, Tracing
from coordinator.uploads.envelope_checks import RETRYING
from coordinator.uploads.in_flight import Upload
from coordinator.uploads.service import Uploads
from coordinator.workers.sessions import Session, SessionTable
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire import from_proto, to_proto
from ssd_wire.uploads import Continue, Envelope, Hold, UploadFate, Verdict


class UploadCalls:
    """Carries uploads in and verdicts out; `Uploads` decides."""

    def __init__(
        self,
        uploads: Uploads,
        sessions: SessionTable,
        identity: Identity,
        limits: LimitsSection,
        metrics: CoordinatorMetrics,
        tracing: Tracing,
    ) -> None:
        self._uploads = uploads
        self._sessions = sessions
        self._identity = identity
        self._limits = limits
        self._metrics = metrics
        self._tracing = tracing
        self._share = CallShare(limits.uploads_per_worker, "uploads")

    async def submit_update(self, _requests: AsyncIterator[Any], context: Context) -> None:
        """Take an upload in, judge it, answer."""
        try:
            session = session_of(self._sessions, self._identity, context)
            with (
                self._share.one_more(session.worker),
                traced(self._tracing, session, "SubmitUpdate", context) as call,
            ):
                await self._submit(session, context, call)
        except ClientFault as fault:
            await self._refuse(context, fault)

    async def _submit(self, session: Session, context: Context, call: Call) -> None:
        envelope: Envelope | None = None
        sender = UploadSender(session, context, self._limits.stall_seconds)
        try:
            envelope = await sender.envelope()
            call.belongs_to(envelope.round, envelope.attempt)
            call.say({"ssd.clients": len(envelope.clients), "ssd.bytes": envelope.body_size})
            verdict = await self._uploads.receive(session, envelope, sender)
        except ClientFault as fault:
            call.failed(fault.reason.value)
            if envelope is not None:
                verdict = self._uploads.reject(session, envelope, fault)
                if fault.reason not in RETRYING:
                    await self._answer(sender, verdict)
            await self._refuse(context, fault)
            return
        except StorageFailed as error:
            call.failed(Reason.STORAGE.value)
            await self._refuse(context, ClientFault(Reason.STORAGE, str(error)))
            return
        else:
            call.say({"ssd.outcome": verdict.fate.value})
            if verdict.reason:
                call.failed(verdict.reason)
            await self._answer(sender, verdict)
            if verdict.fate is UploadFate.REJECTED:
                await self._refuse(context, ClientFault(Reason(verdict.reason), verdict.detail))
        finally:
            sender.done()

    async def _answer(self, sender: UploadSender, verdict: Verdict) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await sender.write(to_proto.upload_reply(verdict))

    async def _refuse(self, context: Context, fault: ClientFault) -> None:
        await refuse(self._metrics, context, "submit_update", fault)


class UploadSender:
    """`coordinator.uploads.service.Sender` over the call's stream.

    Args:
        session: whose upload it is; its end is the call's.
        context: the call.
        stall_seconds: how long nothing may come.
    """

    def __init__(self, session: Session, context: Context, stall_seconds: float) -> None:
        self._session = session
        self._context = context
        self._stall_seconds = stall_seconds
        self._stall = Stall(stall_seconds)
        self._ends = [asyncio.ensure_future(session.closed.wait())]

    async def envelope(self) -> Envelope:
        """The first message.

        Raises:
            ClientFault: it is no envelope, or none came.
        """
        first = await self._next(None)
        if not isinstance(first, pb.UploadPart) or first.WhichOneof("kind") != "envelope":
            raise ClientFault(Reason.WRONG_ORDER, "the first message of an upload is its envelope")
        return parsed(from_proto.envelope, first.envelope)

    async def hold(self) -> None:
        """See `Sender`."""
        await self.write(to_proto.upload_reply(Hold(reason="no room for the body yet")))

    async def proceed(self, offset: int) -> None:
        """See `Sender`. From here on the sender's patience counts anew."""
        self._stall = Stall(self._stall_seconds)
        await self.write(to_proto.upload_reply(Continue(offset=offset)))

    async def write(self, reply: pb.UploadReply) -> None:
        """Send a reply; it is not waited for longer than the session lasts, but for a few seconds.

        Raises:
            ClientFault: reason stalled or no_session; the reply was not read.
            asyncio.CancelledError: the peer is gone.
        """
        writing = asyncio.ensure_future(self._context.write(reply))
        try:
            await asyncio.wait({writing, self._ends[0]}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                await asyncio.wait({writing}, timeout=LAST_WORDS_SECONDS)
            if not writing.done():
                raise ClientFault(Reason.NO_SESSION, "the session ended, and the reply was not read")
            with ending_with_its_peer():
                await writing
        finally:
            writing.cancel()

    async def next_chunk(self, upload: Upload) -> tuple[int, bytes | memoryview] | None:
        """See `Sender`."""
        if len(self._ends) == 1:
            self._ends.append(asyncio.ensure_future(upload.interrupted.wait()))
        part = await self._next(upload)
        if part is None:
            return None
        if isinstance(part, ChunkPart):
            offset, data = part.offset, part.data
        elif part.WhichOneof("kind") == "chunk":
            offset, data = part.chunk.offset, part.chunk.data
        else:
            raise ClientFault(Reason.WRONG_ORDER, "after the envelope come chunks")
        self._stall.moved(len(data))
        return offset, data

    def done(self) -> None:
        """The call is over."""
        for end in self._ends:
            end.cancel()

    async def _next(self, upload: Upload | None) -> Any:
        """The next message of an upload; it is not waited for longer than the session, the claim and patience last."""
        came, part = await read(self._context, self._ends, self._stall.remaining)
        if came:
            return part
        if not self._session.open:
            raise ClientFault(
                Reason.NO_SESSION, "the session ended during the upload; attend again, then go on with it"
            )
        if upload is not None and upload.interruption is not None:
            raise upload.interruption
        fault = self._stall.fault()
        if upload is not None:
            # Its room goes to others, which a body that broke off keeps.
            upload.interrupt(fault)
        raise fault
