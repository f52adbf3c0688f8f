"""The gRPC server: which services it offers, with which limits, and whether it says it is well."""

from __future__ import annotations

import contextlib

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.driver import Driver
from coordinator.errors import PortUnavailable
from coordinator.ports import Identity
from coordinator.rpc import operator, servicer
from coordinator.rpc.gate import Gate

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = (servicer.SERVICE, operator.SERVICE)
HARD_LIMIT_HELLO = servicer.MAX_HELLO_BYTES + (1 << 20)
LOOKAHEAD_BYTES = 256 << 10
HARD_LIMIT_FACTOR = 2
"""gRPC's own limit lies above ours: what is between the two gets our refusal, with a reason and a metric."""


def options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Channel arguments of the server."""
    return [
        ("grpc.max_receive_message_length", max(HARD_LIMIT_FACTOR * max_message_bytes, HARD_LIMIT_HELLO)),
        ("grpc.max_send_message_length", -1),
        # What a stream may send ahead of being read. Left to itself gRPC raises it to megabytes for each of them.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        # The port belongs to one process; a second coordinator must fail to bind, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


class RpcServer:
    """One server for control, data and operator calls."""

    def __init__(self, driver: Driver, identity: Identity, max_message_bytes: int) -> None:
        gate = Gate(identity, driver.revocations.is_revoked, driver.metrics)
        self._server = grpc.aio.server(interceptors=(gate,), options=options(max_message_bytes))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        federation = servicer.FederationServicer(driver, identity, max_message_bytes)
        self._server.add_generic_rpc_handlers(
            (federation.handler(), operator.OperatorServicer(driver, identity).handler())
        )
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
