"""The Enrolment service on its own port, and the Renewal service on the main one.

Whoever can reach the enrolment port is a stranger, so it offers one call, takes small messages from few at a time, ends
connections that linger, and answers only as often as `coordinator.runtime.rate_limit` lets it. Refusals of that kind are counted
and not logged: a flood of calls must not become a flood of lines.

gRPC bounds no handshakes, and a handshake is what a stranger can have us do most work with. So gRPC listens on a port
of this machine that nobody is told of, and `coordinator.runtime.listener` in front of it carries the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from coordinator.errors import ClientFault, NotPermitted, PortUnavailable, Reason, StorageFailed
from coordinator.identity.caller import TLS_VERSION
from coordinator.identity.enrolment import CertificateIssuer, Outcome
from coordinator.ports.clock import Clock
from coordinator.ports.identity import Identity
from coordinator.rpc.interceptors.first_message import FirstMessage
from coordinator.rpc.serving.calls import Context, Handler, refuse, well_formed
from coordinator.rpc.serving.limits import IDENTITY_ONLY
from coordinator.rpc.serving.status import REASON_KEY, TABLE
from coordinator.rpc.serving.wire import serialise, tolerant
from coordinator.runtime.listener import Bounds, Door, relay
from coordinator.runtime.rate_limit import AdmissionLimit, Allowance
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.address import Address
from ssd.daemon.logs import event as log_event
from ssd.trust.requests import MAX_REQUEST_BYTES
from ssd_proto.v1 import enrolment_pb2 as pb

log = logging.getLogger(__name__)

ENROLMENT = "ssd_proto.v1.Enrolment"
RENEWAL = "ssd_proto.v1.Renewal"
MAX_MESSAGE_BYTES = MAX_REQUEST_BYTES + 1024
CALL_SECONDS = 10.0
"""How long one request may take."""
PER_HOST = Allowance(burst=10, per_second=1.0)
OVERALL = Allowance(burst=100, per_second=20.0)
PER_HOLDER = Allowance(burst=5, per_second=0.1)
"""Of renewals: each stores a certificate."""
CONNECTIONS = Bounds(at_once=64, at_once_per_host=16, per_second=50.0, seconds=30.0)
LOOPBACK = "127.0.0.1"
_OPTIONS = (
    ("grpc.max_receive_message_length", 2 * MAX_MESSAGE_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ONLY),
    ("grpc.max_metadata_size", 8192),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 16 << 10),
)
MAX_CALLS = 32
"""Under way at once; more are refused by gRPC itself."""

Reply = TypeVar("Reply")


class EnrolmentServer:
    """Offers `Enroll` alone, to callers without a certificate."""

    def __init__(self, issuer: CertificateIssuer, clock: Clock, metrics: CoordinatorMetrics) -> None:
        self._issuer = issuer
        self._clock = clock
        self._metrics = metrics
        self._admission = AdmissionLimit(PER_HOST, OVERALL)
        self._server = grpc.aio.server(
            interceptors=(FirstMessage(metrics, CALL_SECONDS),),
            options=list(_OPTIONS),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._server.add_generic_rpc_handlers((self._handler(),))
        self._door = Door(CONNECTIONS, self._carry, lambda: metrics.connection_cut("enrolment"))
        self._port = 0
        self._hosts: dict[str, str] = {}
        """Whose bytes come from which of the door's own ports."""

    def _handler(self) -> Handler:
        enroll = grpc.unary_unary_rpc_method_handler(
            self._enroll, tolerant(pb.EnrollRequest, MAX_MESSAGE_BYTES), serialise
        )
        return grpc.method_handlers_generic_handler(ENROLMENT, {"Enroll": enroll})

    async def start(self, address: Address, credentials: grpc.ServerCredentials) -> int:
        """Listen; the port.

        Args:
            address: where.
            credentials: of this port alone, with the authority's certificate in the chain and without a wish for
                the caller's.

        Raises:
            PortUnavailable: the address cannot be bound.
        """
        self._port = self._server.add_secure_port(f"{LOOPBACK}:0", credentials)
        await self._server.start()
        try:
            bound = await self._door.open(address)
        except OSError as error:
            await self._server.stop(0)
            raise PortUnavailable(
                f"cannot listen on {address}: set enrolment.listen to a free address of this host"
            ) from error
        log_event(log, logging.INFO, "enrolling", address=str(bound))
        return bound.port

    async def stop(self, grace: float) -> None:
        """Take no new calls, give those under way `grace` seconds."""
        await self._door.shut()
        with contextlib.suppress(Exception):
            await self._server.stop(grace)
        await self._door.close()

    async def _carry(self, caller: socket.socket, host: str) -> None:
        with caller, socket.socket() as inner:
            inner.setblocking(False)
            await asyncio.get_running_loop().sock_connect(inner, (LOOPBACK, self._port))
            own = f"ipv4:{LOOPBACK}:{inner.getsockname()[1]}"
            self._hosts[own] = host
            try:
                await relay(caller, inner)
            finally:
                del self._hosts[own]

    async def _enroll(self, request: Any, context: Context) -> pb.EnrollReply | None:
        # Who found the port behind the door is on this machine.
        host = self._hosts.get(context.peer(), LOOPBACK)
        if not self._admission.admit(host, self._clock.monotonic()):
            await _turn_away(self._metrics, context, "enroll")
            return None

        async def answer() -> pb.EnrollReply:
            if list(context.auth_context().get("ssl_tls_version", ())) != [TLS_VERSION]:
                raise NotPermitted(Reason.TLS_VERSION, "this port speaks TLS 1.3 only")
            asked = well_formed(request)
            bought = await self._issuer.enroll(asked.secret, asked.subject, asked.request)
            return pb.EnrollReply(certificate=bought.certificate.encode(), authority=self._issuer.authority)

        return await _answered(self._metrics, context, "enroll", answer)


class RenewalServicer:
    """`Renew`, for who came with a certificate; the gate has looked at its role.

    Args:
        issuer: who issues; None: this coordinator does not (`[enrolment]` is off).
        identity: who is calling.
        clock: time.
        metrics: counts.
    """

    def __init__(
        self, issuer: CertificateIssuer | None, identity: Identity, clock: Clock, metrics: CoordinatorMetrics
    ) -> None:
        self._issuer = issuer
        self._identity = identity
        self._clock = clock
        self._metrics = metrics
        self._admission = AdmissionLimit(PER_HOLDER, OVERALL)

    def handler(self) -> Handler:
        """The service's handlers."""
        renew = grpc.unary_unary_rpc_method_handler(
            self._renew, tolerant(pb.RenewRequest, MAX_MESSAGE_BYTES), serialise
        )
        return grpc.method_handlers_generic_handler(RENEWAL, {"Renew": renew})

    async def _renew(self, request: Any, context: Context) -> pb.RenewReply | None:
        async def answer() -> pb.RenewReply:
            caller = self._identity.subject(context.auth_context())
            if caller is None:
                raise NotPermitted(Reason.NO_IDENTITY, "without TLS there is no certificate to renew")
            if self._issuer is None:
                raise ClientFault(
                    Reason.ENROLMENT_REFUSED,
                    "this coordinator issues no certificates ([enrolment] listen is not set): ask its operator for one",
                )
            if not self._admission.admit(caller.uri, self._clock.monotonic()):
                raise ClientFault(Reason.TOO_OFTEN, "this holder asks too often; come again later")
            asked = well_formed(request)
            made = await self._issuer.renew(caller, asked.request)
            return pb.RenewReply(certificate=made.certificate.encode())

        return await _answered(self._metrics, context, "renew", answer)


async def _answered(
    metrics: CoordinatorMetrics, context: Context, call: str, answer: Callable[[], Awaitable[Reply]]
) -> Reply | None:
    """The answer, or its fault as a status."""
    try:
        return await asyncio.wait_for(answer(), CALL_SECONDS)
    except ClientFault as fault:
        await refuse(metrics, context, call, fault)
    except StorageFailed as error:
        log_event(log, logging.ERROR, error.code, detail=str(error))
        await refuse(
            metrics, context, call, ClientFault(Reason.STORAGE, "nothing can be stored now; try again later")
        )
    except TimeoutError:
        await refuse(
            metrics, context, call, ClientFault(Reason.NO_ROOM, "too much to do now; try again later")
        )
    return None


async def _turn_away(metrics: CoordinatorMetrics, context: Context, call: str) -> None:
    metrics.refused(call, Reason.TOO_OFTEN)
    metrics.certificate_request(call, Outcome.TOO_OFTEN.value)
    with contextlib.suppress(asyncio.InvalidStateError):
        await context.abort(
            TABLE[Reason.TOO_OFTEN].code,
            "too many ask at once; try again in a while",
            trailing_metadata=((REASON_KEY, Reason.TOO_OFTEN.value),),
        )
