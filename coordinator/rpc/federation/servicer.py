"""The Federation service: Attend, FetchBlob and SubmitUpdate over grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc

from coordinator.config.sections import LimitsSection
from coordinator.errors import MAX_DETAIL, BlobCorrupt, BlobMissing, ClientFault, Reason, StorageFailed
from coordinator.ports.identity import Identity
from coordinator.rounds.downloads import Downloads
from coordinator.rounds.worker_reports import WorkerReports
from coordinator.rpc.federation.hello import HelloReader
from coordinator.rpc.federation.share import CallShare
from coordinator.rpc.federation.upload_call import UploadCalls
from coordinator.rpc.serving.calls import (
    LAST_WORDS_SECONDS,
    Context,
    Handler,
    Stall,
    check_offset,
    ending_with_its_peer,
    parsed,
    refuse,
    send,
    session_of,
    traced,
    well_formed,
)
from coordinator.rpc.serving.wire import blob_part, serialise, tolerant, upload_part
from coordinator.runtime.rate_limit import PaceLimit
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import Call, Tracing
from coordinator.uploads.service import Uploads
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import event as log_event
from ssd.daemon.logs import repeatable
from ssd.digest import CHUNK_BYTES
from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire import from_proto, messages, to_proto
from ssd_wire.errors import Malformed
from ssd_wire.reasons import named_well, task_failure

log = logging.getLogger(__name__)

SERVICE = "ssd_proto.v1.Federation"
MAX_REQUEST_BYTES = 4 << 10
"""A digest and an offset take a hundred."""
BURST_SECONDS = 20.0
"""What a worker may say at once, in seconds of its steady pace: a thousand clients whose data is missing, for example."""
UNIT_BYTES = 16 << 10
"""A message counts once for every so many bytes it has begun."""
REMEMBERED_PACES = 16384
"""Workers whose pace is remembered; who is forgotten attached longest ago."""
MAX_NAME = 128
"""Characters of a stranger's name that are kept."""


class FederationServicer:
    """Translates calls into the coordinator's and faults into statuses; decides nothing itself.

    Args:
        attendance: takes what workers say.
        sessions: the attached workers.
        downloads: the blobs they may fetch.
        uploads: takes their updates.
        identity: whose call it is.
        limits: of messages and calls.
        metrics: counts refusals.
        tracing: gets a span for each data call.
    """

    def __init__(
        self,
        *,
        attendance: WorkerReports,
        sessions: SessionTable,
        downloads: Downloads,
        uploads: Uploads,
        identity: Identity,
        limits: LimitsSection,
        metrics: CoordinatorMetrics,
        tracing: Tracing,
    ) -> None:
        self._attendance = attendance
        self._sessions = sessions
        self._downloads = downloads
        self._identity = identity
        self._limits = limits
        self._metrics = metrics
        self._tracing = tracing
        self._hellos = HelloReader()
        self._fetches = CallShare(limits.fetches_per_worker, "fetches")
        self._paces: OrderedDict[str, PaceLimit] = OrderedDict()
        self._uploads = UploadCalls(uploads, sessions, identity, limits, metrics, tracing)

    def handler(self) -> Handler:
        """The service's handlers, with deserialisers that never raise."""
        limit = self._limits.max_message_bytes
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Attend": grpc.stream_stream_rpc_method_handler(
                    self.attend, tolerant(pb.WorkerMessage, limit), serialise
                ),
                "FetchBlob": grpc.unary_stream_rpc_method_handler(
                    self.fetch_blob, tolerant(pb.FetchBlobRequest, MAX_REQUEST_BYTES), serialise
                ),
                "SubmitUpdate": grpc.stream_stream_rpc_method_handler(
                    self._uploads.submit_update, upload_part(limit), serialise
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
            self._attendance.detach(session)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await asyncio.wait({writer}, timeout=LAST_WORDS_SECONDS)
        finally:
            self._attendance.detach(session)
            for task in (reader, writer, closed):
                task.cancel()
        if session.closing is not None:
            await self._refuse(context, "attend", session.closing)

    async def _open_session(self, context: Context) -> Session:
        caller = self._identity.subject(context.auth_context())
        holder = None if caller is None else caller.uri
        said = await self._hellos.read(context, self._attendance.silence_seconds, holder)
        hello = parsed(from_proto.hello, said)
        if caller is not None and caller.name != hello.worker:
            raise ClientFault(
                Reason.IDENTITY_MISMATCH, f"the certificate says {caller.name}, the hello another name"
            )
        return await self._attendance.attach(hello, caller)

    async def _write(self, session: Session, context: Context) -> None:
        while (message := await session.outbox.get()) is not None:
            try:
                with ending_with_its_peer():
                    await context.write(to_proto.down(message))
            except ClientFault as fault:
                session.close(
                    ClientFault(Reason.SILENT, f"the worker does not read its stream: {fault.detail}")
                )
                return

    def _pace(self, worker: str) -> PaceLimit:
        """The worker's own, so that a new stream brings no new burst."""
        pace = self._paces.pop(worker, None) or PaceLimit(self._limits.messages_per_second, BURST_SECONDS)
        self._paces[worker] = pace
        if len(self._paces) > REMEMBERED_PACES:
            self._paces.popitem(last=False)
        return pace

    async def _read(self, session: Session, context: Context) -> ClientFault | None:
        """Read until the stream ends; a fault of the worker ends it."""
        pace = self._pace(session.worker)
        try:
            while (message := well_formed(await context.read())) is not None:
                self._attendance.note_contact(session)
                await self._dispatch(session, message)
                units = 1 + message.ByteSize() // UNIT_BYTES
                wait = pace.seconds_to_wait(units, asyncio.get_running_loop().time())
                if wait > 0:
                    self._metrics.throttled()
                    await asyncio.sleep(wait)
        except ClientFault as fault:
            return fault
        except StorageFailed as error:
            return ClientFault(Reason.STORAGE, str(error))
        except grpc.aio.AioRpcError:
            return None
        return None

    async def _dispatch(self, session: Session, message: pb.WorkerMessage) -> None:
        attendance = self._attendance
        match parsed(from_proto.up, message):
            case messages.TaskFailed() as failed:
                reason = task_failure(failed.reason)
                repeatable(
                    log,
                    logging.WARNING,
                    "task_failed",
                    (session.worker, reason),
                    worker=session.worker,
                    client=failed.client[:MAX_NAME],
                    round=failed.round,
                    reason=reason,
                    detail=failed.detail[:MAX_DETAIL],
                )
                await attendance.client_failed(session, failed.round, failed.attempt, failed.client, reason)
            case messages.EvaluationDone() as answer:
                known = replace(answer, values=named_well(answer.values))
                await attendance.evaluation_done(session, known)
            case messages.ClientsChanged(clients=clients):
                await attendance.change_clients(session, clients)
            case messages.SecureMessage(round_id=round_id, content=content):
                await attendance.secure_message(session, round_id, content)
            case messages.Progress() as progress:
                await attendance.progressed(
                    session, progress.round, progress.attempt, progress.client, progress.step, progress.steps
                )
            case messages.Heartbeat() | messages.VersionHeld():
                pass  # These only show that the worker lives.

    # ------------------------------------------------------------------------------------------------ fetch

    async def fetch_blob(self, request: pb.FetchBlobRequest | Malformed, context: Context) -> None:
        """Stream a blob from an offset."""
        try:
            session = session_of(self._sessions, self._identity, context)
            checked = well_formed(request)
            with traced(self._tracing, session, "FetchBlob", context) as call:
                await self._fetch(session, checked, context, call)
        except ClientFault as fault:
            await self._refuse(context, "fetch_blob", fault)
        except BlobMissing as error:
            await self._refuse(context, "fetch_blob", ClientFault(Reason.UNKNOWN_BLOB, str(error)))
        except (BlobCorrupt, StorageFailed) as error:
            log_event(log, logging.ERROR, error.code, detail=str(error))
            await self._refuse(context, "fetch_blob", ClientFault(Reason.STORAGE, str(error)))

    async def _fetch(
        self, session: Session, request: pb.FetchBlobRequest, context: Context, call: Call
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        with self._fetches.one_more(session.worker):
            await self._send_blob(session, request, context, call, task)

    async def _send_blob(
        self,
        session: Session,
        request: pb.FetchBlobRequest,
        context: Context,
        call: Call,
        task: asyncio.Task[Any],
    ) -> None:
        reader = self._downloads.open(request.digest, session)
        # A reader that never reads is cut off with its session.
        session.fetches.add(task)
        try:
            offset, size = request.offset, reader.info.size
            check_offset(offset, size)
            call.say({"ssd.offset": offset, "ssd.bytes": size - offset})
            stall = Stall(self._limits.stall_seconds)
            head = pb.BlobPart(chunk_digests=b"".join(reader.chunk_digests), size=size, offset=offset)
            await send(context, head, stall)
            while offset < size:
                data = await asyncio.to_thread(reader.read, offset, min(CHUNK_BYTES, size - offset))
                await send(context, blob_part(offset, data), stall)
                stall.moved(len(data))
                offset += len(data)
                self._downloads.sent(len(data))
        finally:
            session.fetches.discard(task)
            reader.close()

    # ----------------------------------------------------------------------------------------------- common

    async def _refuse(self, context: Context, call: str, fault: ClientFault) -> None:
        await refuse(self._metrics, context, call, fault)
