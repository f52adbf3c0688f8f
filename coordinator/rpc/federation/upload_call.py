"""The call SubmitUpdate: an envelope, chunks, a verdict."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc

from coordinator.config.sections import LimitsSection
from coordinator.errors import ClientFault, Reason, StorageFailed
from coordinator.ports.identity import Identity
from coordinator.rounds.driver import Driver
from coordinator.rpc.serving.calls import Context, Stall, finished, parsed, read, refuse, session_of, traced
from coordinator.rpc.serving.wire import ChunkPart
from coordinator.telemetry.tracing import Call
from coordinator.uploads.envelope_checks import RETRYING
from coordinator.uploads.in_flight import Upload
from coordinator.workers.sessions import Session
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire import from_proto, to_proto
from ssd_wire.uploads import Continue, Envelope, Hold, UploadFate, Verdict

HOLD_POLL_SECONDS = 0.25


class UploadCalls:
    """Takes uploads in and answers them; the driver decides."""

    def __init__(self, driver: Driver, identity: Identity, limits: LimitsSection) -> None:
        self._driver = driver
        self._identity = identity
        self._limits = limits

    async def submit_update(self, _requests: AsyncIterator[Any], context: Context) -> None:
        """Take an upload in, judge it, answer."""
        try:
            session = session_of(self._driver, self._identity, context)
            if session.uploads >= (most := self._limits.uploads_per_worker):
                raise ClientFault(Reason.NO_ROOM, f"{most} uploads of this session are under way")
        except ClientFault as fault:
            await self._refuse(context, fault)
            return
        session.uploads += 1
        try:
            with traced(self._driver, session, "SubmitUpdate", context) as call:
                await self._submit(session, context, call)
        finally:
            session.uploads -= 1

    async def _submit(self, session: Session, context: Context, call: Call) -> None:
        envelope: Envelope | None = None
        try:
            ends = (asyncio.ensure_future(session.closed.wait()),)
            try:
                first = await self._next(context, ends, session, Stall(self._limits.stall_seconds))
            finally:
                ends[0].cancel()
            if not isinstance(first, pb.UploadPart) or first.WhichOneof("kind") != "envelope":
                raise ClientFault(Reason.WRONG_ORDER, "the first message of an upload is its envelope")
            envelope = parsed(from_proto.envelope, first.envelope)
            call.belongs_to(envelope.round, envelope.attempt)
            call.say({"ssd.clients": len(envelope.clients), "ssd.bytes": envelope.body_size})
            self._driver.let_in(session, envelope)
            upload = await self._room(session, envelope, context)
            verdict = await self._take_in(session, upload, context)
        except ClientFault as fault:
            call.failed(fault.reason.value)
            if envelope is not None:
                verdict = self._driver.reject(session, envelope, fault)
                if fault.reason not in RETRYING:
                    await self._answer(context, verdict)
                await self._refuse(context, fault)
            else:
                await self._refuse(context, fault)
            return
        except StorageFailed as error:
            call.failed(Reason.STORAGE.value)
            await self._refuse(context, ClientFault(Reason.STORAGE, str(error)))
            return
        call.say({"ssd.outcome": verdict.fate.value})
        if verdict.reason:
            call.failed(verdict.reason)
        await self._answer(context, verdict)
        if verdict.fate is UploadFate.REJECTED:
            await self._refuse(context, ClientFault(Reason(verdict.reason), verdict.detail))

    async def _room(self, session: Session, envelope: Envelope, context: Context) -> Upload:
        """Wait until the body has room; the sender is told to hold meanwhile."""
        upload = self._driver.claim_upload(session, envelope)
        if upload is not None:
            return upload
        await context.write(to_proto.upload_reply(Hold(reason="no room for the body yet")))
        while upload is None:
            await asyncio.sleep(HOLD_POLL_SECONDS)
            if not session.open:
                raise ClientFault(Reason.NO_SESSION, "the session ended while the upload was held")
            self._driver.let_in(session, envelope)
            upload = self._driver.claim_upload(session, envelope)
        return upload

    async def _take_in(self, session: Session, upload: Upload, context: Context) -> Verdict:
        judged = False
        stall = Stall(self._limits.stall_seconds)
        closed = asyncio.ensure_future(session.closed.wait())
        interrupted = asyncio.ensure_future(upload.interrupted.wait())
        try:
            await context.write(to_proto.upload_reply(Continue(offset=upload.body.received)))
            while not upload.complete:
                part = await self._next(context, (closed, interrupted), session, stall, upload)
                if part is None:
                    raise ClientFault(
                        Reason.TRUNCATED,
                        f"the stream ended at byte {upload.body.received} of {upload.envelope.body_size};"
                        " send the envelope again to go on from there",
                    )
                chunk = part if isinstance(part, ChunkPart) else part.chunk
                if chunk is not part and part.WhichOneof("kind") != "chunk":
                    raise ClientFault(Reason.WRONG_ORDER, "after the envelope come chunks")
                await finished(asyncio.to_thread(upload.take, chunk.offset, chunk.data))
                self._driver.received(len(chunk.data))
                stall.moved(len(chunk.data))
                # Not kept while the next one is on its way.
                del part, chunk
                self._driver.attendance.heard(session)
            judged = True
            return await self._driver.judge(session, upload)
        except asyncio.CancelledError:
            # The sender broke off, or gRPC itself refused a message of it: both look like this.
            if not judged:
                fault = ClientFault(Reason.TRUNCATED, f"the call broke off at byte {upload.body.received}")
                self._driver.reject(session, upload.envelope, fault)
            raise
        finally:
            closed.cancel()
            interrupted.cancel()
            if not judged:
                self._driver.release_upload(upload)

    @staticmethod
    async def _next(
        context: Context,
        ends: Collection[asyncio.Future[Any]],
        session: Session,
        stall: Stall,
        upload: Upload | None = None,
    ) -> Any:
        """The next message of an upload; it is not waited for longer than the session, the claim and patience last."""
        came, part = await read(context, ends, stall.remaining)
        if came:
            return part
        if session.open and upload is not None and upload.interruption is not None:
            raise upload.interruption
        if session.open:
            fault = stall.fault()
            if upload is not None:
                # Its room goes to others, which a body that broke off keeps.
                upload.interrupt(fault)
            raise fault
        raise ClientFault(
            Reason.NO_SESSION, "the session ended during the upload; attend again, then go on with it"
        )

    async def _answer(self, context: Context, verdict: Verdict) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await context.write(to_proto.upload_reply(verdict))

    async def _refuse(self, context: Context, fault: ClientFault) -> None:
        await refuse(self._driver.metrics, context, "submit_update", fault)
