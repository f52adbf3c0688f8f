"""The gRPC server: which services it offers, with which limits, and whether it says it is well."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from coordinator.config.sections import LimitsSection
from coordinator.errors import PortUnavailable
from coordinator.identity.revocations import RevocationList
from coordinator.ports.identity import Identity
from coordinator.rpc.enrolment import RENEWAL
from coordinator.rpc.federation import servicer
from coordinator.rpc.interceptors.first_message import FirstMessage
from coordinator.rpc.interceptors.gate import Gate
from coordinator.rpc.interceptors.library_calls import LibraryCalls
from coordinator.rpc.operator import servicer as operator
from coordinator.rpc.serving.calls import Handler
from coordinator.rpc.serving.limits import server_options
from coordinator.telemetry.metrics import CoordinatorMetrics

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = (servicer.SERVICE, RENEWAL, operator.SERVICE)


def _library_requests() -> dict[str, type[Message]]:
    """Full method name -> its message, of every service that is not ours."""
    return {
        f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
        for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }


class _Health(health.aio.HealthServicer):  # type: ignore[misc,name-defined]  # not in the stubs
    """The library's, with an answer to the one method it left out."""

    async def List(self, request: Any, context: Any) -> None:  # noqa: N802  # the RPC's name
        """Services are named by reflection."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask Check or Watch for a service by its name")


class RpcServer:
    """One server for control, data and operator calls.

    Args:
        services: their handlers.
        identity: whose call it is.
        revocations: who may not call any more.
        limits: of messages, calls and connections.
        metrics: counts refusals.
    """

    def __init__(
        self,
        services: Sequence[Handler],
        identity: Identity,
        revocations: RevocationList,
        limits: LimitsSection,
        metrics: CoordinatorMetrics,
    ) -> None:
        # The gate comes first: who may not call is not waited for either.
        interceptors = (
            Gate(identity, revocations, metrics, limits),
            FirstMessage(metrics, limits.handshake_seconds),
            LibraryCalls(_library_requests(), metrics),
        )
        self._server = grpc.aio.server(interceptors=interceptors, options=server_options(limits))
        self._health = _Health()
        self._server.add_generic_rpc_handlers(tuple(services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._serving: bool | None = None

    async def start(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on `host:port` (port 0: any) or `unix:path`; the port, 0 for a Unix socket.

        Args:
            address: where.
            credentials: of this port alone; None: without TLS.

        Raises:
            PortUnavailable: the address cannot be bound.
        """
        await self.serving(False)
        try:
            port = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:
            raise PortUnavailable(
                f"cannot listen on {address}: it is in use or not an address of this host. Stop the other process"
                " or set coordinator.listen to a free one."
            ) from error
        if port == 0 and not address.startswith("unix:"):
            raise PortUnavailable(f"cannot listen on {address}; set coordinator.listen to a free address")
        await self._server.start()
        return 0 if address.startswith("unix:") else port

    async def serving(self, well: bool) -> None:
        """Say so to Check and Watch, if it is news."""
        if well == self._serving:
            return
        self._serving = well
        for name in ("", *SERVICES):
            await self._health.set(name, SERVING if well else NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Take no new calls, give those under way `grace` seconds."""
        with contextlib.suppress(Exception):
            await self._server.stop(grace)
