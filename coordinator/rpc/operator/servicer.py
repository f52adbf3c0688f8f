"""The Operator service: what `ssd-coordinator status|rounds|clients|...` and the status page talk to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from coordinator.core import events
from coordinator.core.registry import WORKER_NAME
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason, StorageFailed
from coordinator.inspection.clients import ClientView
from coordinator.inspection.gauges import Gauges
from coordinator.inspection.reports import Reports
from coordinator.inspection.rounds import RoundView
from coordinator.inspection.views import StatusView
from coordinator.ports.clock import Clock
from coordinator.ports.identity import Identity
from coordinator.ports.records import ClientRecord
from coordinator.ports.trust import Holder
from coordinator.rounds.driver import Driver
from coordinator.rpc.interceptors.auth import call_name
from coordinator.rpc.operator.details import details_message
from coordinator.rpc.serving.calls import Context, Handler, Stall, check_offset, refuse, send, well_formed
from coordinator.rpc.serving.wire import serialise, tolerant
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.workers.ownership import ClientOwnership, log_audit
from coordinator.workers.welcome import BUILD
from ssd.daemon.logs import event as log_event
from ssd.digest import CHUNK_BYTES, canonical_json
from ssd.trust.names import Role, Subject
from ssd_proto.v1 import operator_pb2 as pb
from ssd_wire import to_proto

log = logging.getLogger(__name__)

SERVICE = "ssd_proto.v1.Operator"
MAX_REQUEST_BYTES = 64 << 10
WATCH_INTERVAL_SECONDS = 0.1


class OperatorServicer:
    """Translates reports into messages, and what an operator wants into events.

    Args:
        reports: what people may see.
        gauges: says when something changed.
        driver: takes what an operator wants of the run.
        ownership: takes what an operator wants of clients and identities.
        identity: whose call it is.
        metrics: counts refusals.
        clock: for ages.
        stall_seconds: how long a reader may take nothing.
    """

    def __init__(
        self,
        *,
        reports: Reports,
        gauges: Gauges,
        driver: Driver,
        ownership: ClientOwnership,
        identity: Identity,
        metrics: CoordinatorMetrics,
        clock: Clock,
        stall_seconds: float,
    ) -> None:
        self._reports = reports
        self._gauges = gauges
        self._driver = driver
        self._ownership = ownership
        self._identity = identity
        self._metrics = metrics
        self._clock = clock
        self._stall_seconds = stall_seconds

    def handler(self) -> Handler:
        """The service's handlers."""
        unary: dict[str, tuple[Callable[[Any], Any], type[Message]]] = {
            "Status": (self._status, pb.StatusRequest),
            "Rounds": (self._rounds, pb.RoundsRequest),
            "Evaluations": (self._evaluations, pb.EvaluationsRequest),
            "Clients": (self._clients, pb.ClientsRequest),
            "Version": (self._version, pb.VersionRequest),
        }
        changing: dict[str, tuple[Callable[[Any], Any], type[Message]]] = {
            "Pause": (self._pause, pb.PauseRequest),
            "Resume": (self._resume, pb.ResumeRequest),
            "Drain": (self._drain, pb.DrainRequest),
            "Revoke": (self._revoke, pb.RevokeRequest),
            "MoveClient": (self._move_client, pb.MoveClientRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(call_name(name), behaviour, audited=name in changing),
                tolerant(request, MAX_REQUEST_BYTES),
                serialise,
            )
            for name, (behaviour, request) in {**unary, **changing}.items()
        }
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(
            self._watch, tolerant(pb.WatchRequest, MAX_REQUEST_BYTES), serialise
        )
        handlers["Download"] = grpc.unary_stream_rpc_method_handler(
            self._download, tolerant(pb.DownloadRequest, MAX_REQUEST_BYTES), serialise
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _guarded(
        self, name: str, behaviour: Callable[[Any], Any], *, audited: bool
    ) -> Callable[[Any, Context], Any]:
        async def call(request: Any, context: Context) -> Any:
            async with self._refusing(name, context):
                wish = well_formed(request)
                reply = await behaviour(wish)
                if audited:
                    log_audit(self._caller(context), name, **_words(wish))
                return reply

        return call

    def _caller(self, context: Context) -> Subject | None:
        return self._identity.subject(context.auth_context())

    @contextlib.asynccontextmanager
    async def _refusing(self, name: str, context: Context) -> AsyncIterator[None]:
        """Turn faults into statuses."""
        metrics = self._metrics
        try:
            yield
        except ClientFault as fault:
            await refuse(metrics, context, name, fault)
        except BlobMissing as error:
            await refuse(metrics, context, name, ClientFault(Reason.UNKNOWN_BLOB, str(error)))
        except (BlobCorrupt, StorageFailed) as error:
            log_event(log, logging.ERROR, error.code, detail=str(error))
            await refuse(metrics, context, name, ClientFault(Reason.STORAGE, str(error)))

    async def _status(self, request: pb.StatusRequest) -> pb.StatusReply:
        view = self._reports.status(self._clock.monotonic())
        reply = status_message(view)
        if request.details:
            reply.details.CopyFrom(details_message(self._reports, view, self._clock))
        return reply

    async def _watch(self, request: Any, context: Context) -> None:
        async with self._refusing("watch", context):
            well_formed(request)
            await context.send_initial_metadata(())
            while True:
                changed = asyncio.ensure_future(self._gauges.changed())
                try:
                    await send(
                        context,
                        status_message(self._reports.status(self._clock.monotonic())),
                        Stall(self._stall_seconds),
                    )
                    await asyncio.sleep(WATCH_INTERVAL_SECONDS)
                    await changed
                finally:
                    changed.cancel()

    async def _download(self, request: Any, context: Context) -> None:
        async with self._refusing("download", context):
            wanted = well_formed(request)
            reader = self._reports.catalogue.open_blob(wanted.digest)
            try:
                size, offset = reader.info.size, wanted.offset
                check_offset(offset, size)
                stall = Stall(self._stall_seconds)
                await context.send_initial_metadata(())
                while offset < size:
                    data = await asyncio.to_thread(reader.read, offset, min(CHUNK_BYTES, size - offset))
                    await send(context, pb.DownloadPart(size=size, offset=offset, data=data), stall)
                    stall.moved(len(data))
                    offset += len(data)
            finally:
                reader.close()

    async def _rounds(self, request: pb.RoundsRequest) -> pb.RoundsReply:
        find = partial(self._reports.rounds, request.limit or 100, names=not request.counts_only)
        return pb.RoundsReply(rounds=[round_message(each) for each in await asyncio.to_thread(find)])

    async def _evaluations(self, _: pb.EvaluationsRequest) -> pb.EvaluationsReply:
        done = await asyncio.to_thread(self._reports.journal.evaluations)
        return pb.EvaluationsReply(
            evaluations=[pb.EvaluationRecord(version=version, values=values) for version, values in done]
        )

    async def _clients(self, _: pb.ClientsRequest) -> pb.ClientsReply:
        records = await asyncio.to_thread(self._reports.journal.clients)
        found = [(record, self._reports.client(record.client, self._clock)) for record in records]
        return pb.ClientsReply(clients=[client_message(view, record) for record, view in found])

    async def _pause(self, _: pb.PauseRequest) -> pb.PauseReply:
        await self._driver.operate(lambda now: events.PauseRequested(now=now))
        return pb.PauseReply()

    async def _resume(self, _: pb.ResumeRequest) -> pb.ResumeReply:
        await self._driver.operate(lambda now: events.ResumeRequested(now=now))
        return pb.ResumeReply()

    async def _drain(self, _: pb.DrainRequest) -> pb.DrainReply:
        # Answered when the wish is noted: the drain itself may wait for a round's end.
        self._driver.request(lambda now: events.DrainRequested(now=now))
        return pb.DrainReply()

    async def _revoke(self, request: pb.RevokeRequest) -> pb.RevokeReply:
        membership = self._ownership
        match request.WhichOneof("what"):
            case "client":
                await membership.revoke_client(request.client)
                return pb.RevokeReply()
            case "identity":
                holder = _holder(request.identity)
                return pb.RevokeReply(connected=await membership.revoke_identity(holder))
            case _:
                raise ClientFault(Reason.MALFORMED_MESSAGE, "name a client or an identity to revoke")

    async def _move_client(self, request: pb.MoveClientRequest) -> pb.MoveClientReply:
        before = await self._ownership.move_client(request.client, request.worker)
        return pb.MoveClientReply(before=before)

    async def _version(self, request: pb.VersionRequest) -> pb.VersionReply:
        offer = self._reports.catalogue.offer(
            None if request.newest else self._reports.catalogue.known(request.number)
        )
        return pb.VersionReply(
            version=to_proto.model_version(offer),
            declaration=canonical_json(dict(self._reports.facts.record.declaration)),
            # The record has the names of the wire.
            provenance=pb.Provenance(build=BUILD, **asdict(await self._reports.provenance(offer.number))),
        )


def _holder(identity: pb.Identity) -> Holder:
    """Whose certificate is meant.

    Raises:
        ClientFault: reason bad_name.
    """
    if identity.role not in set(Role) - {Role.COORDINATOR}:
        raise ClientFault(
            Reason.BAD_NAME, "what can be revoked has the role worker, evaluator, operator or observer"
        )
    if not WORKER_NAME.fullmatch(identity.name):
        raise ClientFault(Reason.BAD_NAME, "that is no name a certificate could carry")
    return Holder(Role(identity.role), identity.name)


def _words(wish: Any) -> dict[str, str]:
    """What an operator asked for, for the log: the text fields that are set."""
    found: dict[str, str] = {}
    for descriptor, value in wish.ListFields():
        found |= {descriptor.name: value} if isinstance(value, str) else _words(value)
    return found


def round_message(view: RoundView) -> pb.RoundRecord:
    """A round attempt on the wire."""
    cost = view.figures.cost
    return pb.RoundRecord(
        round=view.round,
        attempt=view.attempt,
        outcome=view.outcome,
        reason=view.reason,
        cohort_size=view.cohort_size,
        accepted=view.accepted,
        accepted_clients=view.accepted_clients,
        seconds=view.seconds,
        closed_at=view.closed_at or 0.0,
        model_digest=view.model_digest,
        statistics=view.figures.statistics,
        bytes_up=0 if cost is None else cost.bytes_up,
        bytes_down=0 if cost is None else cost.bytes_down,
    )


def client_message(view: ClientView, record: ClientRecord) -> pb.ClientRecord:
    """A registered client on the wire, with what only the journal knows of it."""
    return pb.ClientRecord(
        client=view.client,
        index=-1 if view.index is None else view.index,
        worker=view.worker,
        last_committed_round=view.last_round,
        revoked=view.revoked,
        scaled_dimensions=record.scaling.indices if record.scaling else (),
        alpha=record.scaling.alpha if record.scaling else 0.0,
        rounds_included=record.rounds_included,
        belongs_to=view.belongs_to,
    )


def status_message(view: StatusView) -> pb.StatusReply:
    """A status on the wire."""
    return pb.StatusReply(
        run_id=view.run_id,
        method=view.method,
        mode=view.mode,
        phase=view.phase,
        waiting_for=view.waiting_for,
        version=to_proto.model_version(view.version),
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
        statistics=view.figures.statistics,
        build=BUILD,
        uptime_seconds=view.uptime_seconds,
        privacy=view.privacy,
    )
