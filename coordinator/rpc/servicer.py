"""The Federation service: Attend, FetchBlob and SubmitUpdate over grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import grpc

from coordinator.core.state import Fate
from coordinator.driver import Driver
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason, StorageFailed
from coordinator.logs import event as log_event
from coordinator.messages import Envelope, Verdict
from coordinator.ports import Identity
from coordinator.rpc import convert
from coordinator.rpc.calls import Context, Handler, check_offset, finished, read, refuse, well_formed
from coordinator.rpc.status import SESSION_KEY
from coordinator.rpc.wire import Malformed, blob_part, serialise, tolerant
from coordinator.sessions import Session
from coordinator.uploads import RETRYING, Upload
from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "ssd_proto.v1.Federation"
HOLD_POLL_SECONDS = 0.25
LAST_WORDS_SECONDS = 5.0
"""How long a closed stream may take to deliver what is queued for it."""
MAX_FETCHES = 8
"""Blobs a session may be reading at once."""
MAX_HELLO_BYTES = 16 << 20
"""A worker may host 100,000 clients and hold an update for each."""
MAX_REASON = 64
"""Characters of a stranger's reason that are kept."""


class FederationServicer:
    """Translates calls into driver calls and faults into statuses; decides nothing itself."""

    def __init__(self, driver: Driver, identity: Identity, max_message_bytes: int) -> None:
        self._driver = driver
        self._identity = identity
        self._limit = max_message_bytes

    def handler(self) -> Handler:
        """The service's handlers, with deserialisers that never raise."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Attend": grpc.stream_stream_rpc_method_handler(
                    self.attend, tolerant(pb.WorkerMessage, MAX_HELLO_BYTES), serialise
                ),
                "FetchBlob": grpc.unary_stream_rpc_method_handler(
                    self.fetch_blob, tolerant(pb.FetchBlobRequest, self._limit), serialise
                ),
                "SubmitUpdate": grpc.stream_stream_rpc_method_handler(
                    self.submit_update, tolerant(pb.UploadPart, self._limit), serialise
                ),
            },
        )

    # ----------------------------------------------------------------------------------------------- attend

    async def attend(self, _requests: AsyncIterator[Any], context: Context) -> None:
        """One worker's control stream."""
        try:
            session = await self._open_session(context)
        except ClientFault as fault:
            await self._refuse(context, "attend", fault)
            return
        except StorageFailed as error:
            await self._refuse(context, "attend", ClientFault(Reason.STORAGE, str(error)))
            return
        reader = asyncio.ensure_future(self._read(session, context))
        writer = asyncio.ensure_future(self._write(session, context))
        closed = asyncio.ensure_future(session.closed.wait())
        try:
            # A peer that neither sends nor reads ends neither of the two: the session may end on its own.
            await asyncio.wait({reader, writer, closed}, return_when=asyncio.FIRST_COMPLETED)
            session.close(reader.result() if reader.done() and not reader.cancelled() else None)
            self._driver.detach(session)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await asyncio.wait({writer}, timeout=LAST_WORDS_SECONDS)
        finally:
            self._driver.detach(session)
            for task in (reader, writer, closed):
                task.cancel()
        if session.closing is not None:
            await self._refuse(context, "attend", session.closing)

    async def _open_session(self, context: Context) -> Session:
        patience = self._driver.silence_seconds
        came, hello = await read(context, timeout=patience)
        if not came:
            raise ClientFault(Reason.SILENT, f"no hello came within {patience:g} s")
        if hello is None or hello.WhichOneof("kind") != "hello":
            raise ClientFault(Reason.WRONG_ORDER, "the first message of a stream is the hello")
        claim = convert.claim_of(hello.hello)
        name = self._identity.worker_name(claim.worker, dict(context.auth_context()), context.peer())
        if name != claim.worker:
            raise ClientFault(
                Reason.IDENTITY_MISMATCH, f"the certificate says {name}, the hello another name"
            )
        protocol = (hello.hello.protocol_min, hello.hello.protocol_max)
        return await self._driver.attach(claim, protocol, convert.capabilities_of(hello.hello))

    async def _write(self, session: Session, context: Context) -> None:
        while (message := await session.outbox.get()) is not None:
            await context.write(convert.down(message))

    async def _read(self, session: Session, context: Context) -> ClientFault | None:
        """Read until the stream ends; a fault of the worker ends it."""
        try:
            while (message := well_formed(await context.read())) is not None:
                self._driver.heard(session)
                await self._dispatch(session, message)
        except ClientFault as fault:
            return fault
        except StorageFailed as error:
            return ClientFault(Reason.STORAGE, str(error))
        except grpc.aio.AioRpcError:
            return None
        return None

    async def _dispatch(self, session: Session, message: pb.WorkerMessage) -> None:
        match message.WhichOneof("kind"):
            case "hello":
                raise ClientFault(Reason.WRONG_ORDER, "a stream has one hello")
            case "task_failed":
                failed = message.task_failed
                log_event(
                    log,
                    logging.WARNING,
                    "task_failed",
                    worker=session.worker,
                    client=failed.client,
                    round=failed.round,
                    reason=failed.reason,
                    detail=failed.detail,
                )
                await self._driver.client_failed(
                    session, failed.round, failed.attempt, failed.client, failed.reason[:MAX_REASON]
                )
            case "evaluation_done":
                done = message.evaluation_done
                await self._driver.evaluation_done(session, done.version, dict(done.values), done.error)
            case "clients_changed":
                clients = convert.hosted_clients(message.clients_changed.clients)
                await self._driver.change_clients(session, clients)
            case None:
                raise ClientFault(Reason.MALFORMED_MESSAGE, "an empty message")
            case _:
                pass  # heartbeats, progress and versions held only show that the worker lives

    # ------------------------------------------------------------------------------------------------ fetch

    async def fetch_blob(self, request: pb.FetchBlobRequest | Malformed, context: Context) -> None:
        """Stream a blob from an offset."""
        try:
            session = self._session(context)
            checked = well_formed(request)
            task = asyncio.current_task()
            assert task is not None
            if len(session.fetches) >= MAX_FETCHES:
                raise ClientFault(Reason.NO_ROOM, f"{MAX_FETCHES} fetches of this session are under way")
            reader = self._driver.open_blob(checked.digest)
            # A reader that never reads is cut off with its session.
            session.fetches.add(task)
            try:
                offset, size = checked.offset, reader.info.size
                check_offset(offset, size)
                await context.write(
                    pb.BlobPart(chunk_digests=b"".join(reader.chunk_digests), size=size, offset=offset)
                )
                while offset < size:
                    data = await asyncio.to_thread(reader.read, offset, min(CHUNK_BYTES, size - offset))
                    await context.write(blob_part(offset, data))
                    offset += len(data)
                    self._driver.sent(len(data))
            finally:
                session.fetches.discard(task)
                reader.close()
        except ClientFault as fault:
            await self._refuse(context, "fetch_blob", fault)
        except BlobMissing as error:
            await self._refuse(context, "fetch_blob", ClientFault(Reason.UNKNOWN_BLOB, str(error)))
        except (BlobCorrupt, StorageFailed) as error:
            log_event(log, logging.ERROR, error.code, detail=str(error))
            await self._refuse(context, "fetch_blob", ClientFault(Reason.STORAGE, str(error)))

    # ----------------------------------------------------------------------------------------------- upload

    async def submit_update(self, _requests: AsyncIterator[Any], context: Context) -> None:
        """Take an upload in, judge it, answer."""
        session: Session | None = None
        envelope: Envelope | None = None
        try:
            session = self._session(context)
            ends = (asyncio.ensure_future(session.closed.wait()),)
            try:
                first = await self._next(context, ends, session)
            finally:
                ends[0].cancel()
            if first is None or first.WhichOneof("kind") != "envelope":
                raise ClientFault(Reason.WRONG_ORDER, "the first message of an upload is its envelope")
            envelope = convert.envelope_of(first.envelope)
            self._driver.let_in(session, envelope)
            upload = await self._room(session, envelope, context)
            verdict = await self._take_in(session, upload, context)
        except ClientFault as fault:
            if session is not None and envelope is not None:
                verdict = self._driver.reject(session, envelope, fault)
                if fault.reason not in RETRYING:
                    await self._answer(context, verdict)
                await self._refuse(context, "submit_update", fault)
            else:
                await self._refuse(context, "submit_update", fault)
            return
        except StorageFailed as error:
            await self._refuse(context, "submit_update", ClientFault(Reason.STORAGE, str(error)))
            return
        await self._answer(context, verdict)
        if verdict.fate is Fate.REJECTED:
            await self._refuse(context, "submit_update", ClientFault(Reason(verdict.reason), verdict.detail))

    async def _room(self, session: Session, envelope: Envelope, context: Context) -> Upload:
        """Wait until the body has room; the sender is told to hold meanwhile."""
        upload = self._driver.claim_upload(session, envelope)
        if upload is not None:
            return upload
        await context.write(pb.UploadReply(hold=pb.Hold(reason="no room for the body yet")))
        while upload is None:
            await asyncio.sleep(HOLD_POLL_SECONDS)
            if not session.open:
                raise ClientFault(Reason.NO_SESSION, "the session ended while the upload was held")
            self._driver.let_in(session, envelope)
            upload = self._driver.claim_upload(session, envelope)
        return upload

    async def _take_in(self, session: Session, upload: Upload, context: Context) -> Verdict:
        judged = False
        closed = asyncio.ensure_future(session.closed.wait())
        interrupted = asyncio.ensure_future(upload.interrupted.wait())
        try:
            await context.write(pb.UploadReply(proceed=pb.Continue(offset=upload.body.received)))
            while not upload.complete:
                part = await self._next(context, (closed, interrupted), session, upload)
                if part is None:
                    raise ClientFault(
                        Reason.TRUNCATED,
                        f"the stream ended at byte {upload.body.received} of {upload.envelope.body_size};"
                        " send the envelope again to go on from there",
                    )
                if part.WhichOneof("kind") != "chunk":
                    raise ClientFault(Reason.WRONG_ORDER, "after the envelope come chunks")
                await finished(asyncio.to_thread(upload.take, part.chunk.offset, part.chunk.data))
                self._driver.received(len(part.chunk.data))
                self._driver.heard(session)
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
        upload: Upload | None = None,
    ) -> Any:
        """The next message of an upload; it is not waited for longer than the session and the claim last."""
        came, part = await read(context, ends)
        if came:
            return part
        if session.open and upload is not None and upload.interruption is not None:
            raise upload.interruption
        raise ClientFault(
            Reason.NO_SESSION, "the session ended during the upload; attend again, then go on with it"
        )

    async def _answer(self, context: Context, verdict: Verdict) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await context.write(convert.verdict_message(verdict))

    # ----------------------------------------------------------------------------------------------- common

    def _session(self, context: Context) -> Session:
        metadata: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()
        tokens = [value for key, value in metadata if key == SESSION_KEY]
        if len(tokens) != 1 or not isinstance(tokens[0], str):
            raise ClientFault(
                Reason.NO_SESSION, f"every data call carries the metadata key {SESSION_KEY} once"
            )
        return self._driver.session(tokens[0])

    async def _refuse(self, context: Context, call: str, fault: ClientFault) -> None:
        await refuse(self._driver.metrics, context, call, fault)
