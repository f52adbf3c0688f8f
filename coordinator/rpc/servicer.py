"""The Federation service: Attend, FetchBlob and SubmitUpdate over grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from coordinator.driver import Driver
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason, StorageFailed
from coordinator.logs import event as log_event
from coordinator.messages import Evaluated
from coordinator.ports import Identity
from coordinator.rpc import convert
from coordinator.rpc.calls import Context, Handler, check_offset, read, refuse, session_of, well_formed
from coordinator.rpc.upload_call import UploadCalls
from coordinator.rpc.wire import Malformed, blob_part, serialise, tolerant, upload_part
from coordinator.sessions import Session
from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "ssd_proto.v1.Federation"
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
        self._uploads = UploadCalls(driver, identity)

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
                    self._uploads.submit_update, upload_part(self._limit), serialise
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
            self._driver.attendance.detach(session)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await asyncio.wait({writer}, timeout=LAST_WORDS_SECONDS)
        finally:
            self._driver.attendance.detach(session)
            for task in (reader, writer, closed):
                task.cancel()
        if session.closing is not None:
            await self._refuse(context, "attend", session.closing)

    async def _open_session(self, context: Context) -> Session:
        patience = self._driver.attendance.silence_seconds
        came, hello = await read(context, timeout=patience)
        if not came:
            raise ClientFault(Reason.SILENT, f"no hello came within {patience:g} s")
        if hello is None or hello.WhichOneof("kind") != "hello":
            raise ClientFault(Reason.WRONG_ORDER, "the first message of a stream is the hello")
        claim = convert.claim_of(hello.hello)
        caller = self._identity.subject(context.auth_context())
        if caller is not None and caller.name != claim.worker:
            raise ClientFault(
                Reason.IDENTITY_MISMATCH, f"the certificate says {caller.name}, the hello another name"
            )
        protocol = (hello.hello.protocol_min, hello.hello.protocol_max)
        capabilities = convert.capabilities_of(hello.hello)
        return await self._driver.attendance.attach(claim, protocol, capabilities, caller)

    async def _write(self, session: Session, context: Context) -> None:
        while (message := await session.outbox.get()) is not None:
            await context.write(convert.down(message))

    async def _read(self, session: Session, context: Context) -> ClientFault | None:
        """Read until the stream ends; a fault of the worker ends it."""
        try:
            while (message := well_formed(await context.read())) is not None:
                self._driver.attendance.heard(session)
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
                await self._driver.attendance.client_failed(
                    session, failed.round, failed.attempt, failed.client, failed.reason[:MAX_REASON]
                )
            case "evaluation_done":
                done = message.evaluation_done
                answer = Evaluated(
                    version=done.version,
                    values=dict(done.values),
                    error=done.error,
                    clients=tuple(done.clients) if done.on_clients else None,
                )
                await self._driver.attendance.evaluation_done(session, answer)
            case "clients_changed":
                clients = convert.hosted_clients(message.clients_changed.clients)
                await self._driver.attendance.change_clients(session, clients)
            case None:
                raise ClientFault(Reason.MALFORMED_MESSAGE, "an empty message")
            case _:
                pass  # heartbeats, progress and versions held only show that the worker lives

    # ------------------------------------------------------------------------------------------------ fetch

    async def fetch_blob(self, request: pb.FetchBlobRequest | Malformed, context: Context) -> None:
        """Stream a blob from an offset."""
        try:
            session = session_of(self._driver, self._identity, context)
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

    # ----------------------------------------------------------------------------------------------- common

    async def _refuse(self, context: Context, call: str, fault: ClientFault) -> None:
        await refuse(self._driver.metrics, context, call, fault)
