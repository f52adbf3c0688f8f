"""The Operator service: what `ssd-coordinator status|rounds|clients|...` and the status page talk to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from coordinator.core import events
from coordinator.driver import Driver
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason, StorageFailed
from coordinator.logs import event as log_event
from coordinator.messages import StatusView
from coordinator.ports import AttemptRecord
from coordinator.rpc import convert
from coordinator.rpc.calls import Context, Handler, check_offset, refuse, well_formed
from coordinator.rpc.wire import serialise, tolerant
from ssd.digest import CHUNK_BYTES, canonical_json
from ssd_proto.v1 import operator_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "ssd_proto.v1.Operator"
MAX_REQUEST_BYTES = 64 << 10
WATCH_INTERVAL_SECONDS = 0.1


class OperatorServicer:
    """Reads the driver's views and hands it the operator's wishes."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def handler(self) -> Handler:
        """The service's handlers."""
        unary: dict[str, tuple[Callable[[Any], Any], type[Message]]] = {
            "Status": (self._status, pb.StatusRequest),
            "Rounds": (self._rounds, pb.RoundsRequest),
            "Evaluations": (self._evaluations, pb.EvaluationsRequest),
            "Clients": (self._clients, pb.ClientsRequest),
            "Pause": (self._pause, pb.PauseRequest),
            "Resume": (self._resume, pb.ResumeRequest),
            "Drain": (self._drain, pb.DrainRequest),
            "Revoke": (self._revoke, pb.RevokeRequest),
            "Version": (self._version, pb.VersionRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name.lower(), behaviour), tolerant(request, MAX_REQUEST_BYTES), serialise
            )
            for name, (behaviour, request) in unary.items()
        }
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(
            self._watch, tolerant(pb.WatchRequest, MAX_REQUEST_BYTES), serialise
        )
        handlers["Download"] = grpc.unary_stream_rpc_method_handler(
            self._download, tolerant(pb.DownloadRequest, MAX_REQUEST_BYTES), serialise
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _guarded(self, name: str, behaviour: Callable[[Any], Any]) -> Callable[[Any, Context], Any]:
        async def call(request: Any, context: Context) -> Any:
            async with self._refusing(name, context):
                return await behaviour(well_formed(request))

        return call

    @contextlib.asynccontextmanager
    async def _refusing(self, name: str, context: Context) -> AsyncIterator[None]:
        """Turn faults into statuses."""
        metrics = self._driver.metrics
        try:
            yield
        except ClientFault as fault:
            await refuse(metrics, context, name, fault)
        except BlobMissing as error:
            await refuse(metrics, context, name, ClientFault(Reason.UNKNOWN_BLOB, str(error)))
        except (BlobCorrupt, StorageFailed) as error:
            log_event(log, logging.ERROR, error.code, detail=str(error))
            await refuse(metrics, context, name, ClientFault(Reason.STORAGE, str(error)))

    async def _status(self, _: pb.StatusRequest) -> pb.StatusReply:
        return status_message(self._driver.status())

    async def _watch(self, request: Any, context: Context) -> None:
        async with self._refusing("watch", context):
            well_formed(request)
            while True:
                changed = asyncio.ensure_future(self._driver.changed())
                try:
                    await context.write(status_message(self._driver.status()))
                    await asyncio.sleep(WATCH_INTERVAL_SECONDS)
                    await changed
                finally:
                    changed.cancel()

    async def _download(self, request: Any, context: Context) -> None:
        async with self._refusing("download", context):
            wanted = well_formed(request)
            reader = self._driver.open_blob(wanted.digest)
            try:
                size, offset = reader.info.size, wanted.offset
                check_offset(offset, size)
                while offset < size:
                    data = await asyncio.to_thread(reader.read, offset, min(CHUNK_BYTES, size - offset))
                    await context.write(pb.DownloadPart(size=size, offset=offset, data=data))
                    offset += len(data)
            finally:
                reader.close()

    async def _rounds(self, request: pb.RoundsRequest) -> pb.RoundsReply:
        attempts = await asyncio.to_thread(self._driver.store_view().attempts, request.limit or 100)
        return pb.RoundsReply(rounds=[self._round(each) for each in attempts])

    async def _evaluations(self, _: pb.EvaluationsRequest) -> pb.EvaluationsReply:
        done = await asyncio.to_thread(self._driver.store_view().evaluations)
        return pb.EvaluationsReply(
            evaluations=[pb.EvaluationRecord(version=version, values=values) for version, values in done]
        )

    def _round(self, attempt: AttemptRecord) -> pb.RoundRecord:
        record = pb.RoundRecord(
            round=attempt.round,
            attempt=attempt.attempt,
            outcome=attempt.outcome,
            reason=attempt.reason,
            cohort_size=len(attempt.cohort),
            accepted=len(attempt.accepted),
            accepted_clients=attempt.accepted,
        )
        if attempt.closed_at is not None:
            record.seconds = max(0.0, attempt.closed_at - attempt.opened_at)
        version = self._driver.catalogue.record(attempt.round)
        if attempt.outcome == "committed" and version is not None:
            record.model_digest = version.model_digest
            for name, value in version.statistics.items():
                record.statistics[name] = value
            record.seconds = version.statistics.get("seconds", record.seconds)
            record.bytes_up = int(version.statistics.get("bytes_up", 0))
            record.bytes_down = int(version.statistics.get("bytes_down", 0))
        return record

    async def _clients(self, _: pb.ClientsRequest) -> pb.ClientsReply:
        records = await asyncio.to_thread(self._driver.store_view().clients)
        hosts = self._driver.state.hosts
        reply = pb.ClientsReply()
        for record in records:
            reply.clients.append(
                pb.ClientRecord(
                    client=record.client,
                    index=-1 if record.index is None else record.index,
                    worker=hosts.get(record.client, ""),
                    last_committed_round=record.last_committed_round,
                    revoked=record.revoked,
                    scaled_dimensions=record.scaling.indices if record.scaling else (),
                    alpha=record.scaling.alpha if record.scaling else 0.0,
                    rounds_included=record.rounds_included,
                )
            )
        return reply

    async def _pause(self, _: pb.PauseRequest) -> pb.PauseReply:
        await self._driver.operate(lambda now: events.PauseRequested(now=now))
        return pb.PauseReply()

    async def _resume(self, _: pb.ResumeRequest) -> pb.ResumeReply:
        await self._driver.operate(lambda now: events.ResumeRequested(now=now))
        return pb.ResumeReply()

    async def _drain(self, _: pb.DrainRequest) -> pb.DrainReply:
        # Answered when the wish is noted: the drain itself may wait for a round's end.
        self._driver.wish(lambda now: events.DrainRequested(now=now))
        return pb.DrainReply()

    async def _revoke(self, request: pb.RevokeRequest) -> pb.RevokeReply:
        await self._driver.revoke(request.client)
        return pb.RevokeReply()

    async def _version(self, request: pb.VersionRequest) -> pb.VersionReply:
        offer = self._driver.catalogue.offer(None if request.newest else self._driver.known(request.number))
        return pb.VersionReply(
            version=convert.version_message(offer),
            declaration=canonical_json(dict(self._driver.run_record.declaration)),
        )


def status_message(view: StatusView) -> pb.StatusReply:
    """A status on the wire."""
    return pb.StatusReply(
        run_id=view.run_id,
        method=view.method,
        mode=view.mode,
        phase=view.phase,
        waiting_for=view.waiting_for,
        version=convert.version_message(view.version),
        round=view.round,
        attempt=view.attempt,
        rounds=view.rounds,
        cohort=view.cohort,
        workers=[
            pb.WorkerStatus(
                worker=worker.worker,
                clients=worker.clients,
                evaluates=worker.capabilities.evaluates,
                device=worker.capabilities.device,
                last_seen_seconds=worker.last_seen_seconds,
            )
            for worker in view.workers
        ],
        registered_clients=view.registered_clients,
        connected_clients=view.connected_clients,
        evaluation=view.evaluation,
        evaluated_version=view.evaluated_version,
        statistics=view.statistics,
        build=convert.BUILD,
        uptime_seconds=view.uptime_seconds,
    )
