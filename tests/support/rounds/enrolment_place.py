"""An enrolment port over real TLS in this process, and TLS servers that note every byte a caller sends them."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc

from coordinator.identity.enrolment import CertificateIssuer, Issuer
from coordinator.ports.trust import Holder, TokenRecord
from coordinator.rpc.enrolment import EnrolmentServer
from coordinator.runtime.clock import SystemClock
from coordinator.store.trust import SqliteTrust
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.address import Address
from ssd.daemon.address import Address as ListenAddress
from ssd.trust.authority import Credential, create_authority, fingerprint, issue
from ssd.trust.join_token import JoinToken, new_secret
from ssd.trust.names import Role, Subject


def credential(authority: Credential, *, hosts: Sequence[str] = ("localhost", "127.0.0.1")) -> Credential:
    """A coordinator's."""
    subject = Subject("f", Role.COORDINATOR, "coordinator")
    return issue(authority, subject, days=1, now=dt.datetime.now(dt.UTC), hosts=hosts)


def new_authority() -> Credential:
    return create_authority("f", days=10, now=dt.datetime.now(dt.UTC))


class EnrolmentPlace:
    """A running enrolment port; its loop has a thread of its own."""

    def __init__(self, root: Path, *, hosts: Sequence[str] = ("localhost", "127.0.0.1")) -> None:
        self.authority = new_authority()
        self.trust = SqliteTrust(root / "coordinator")
        self.metrics = CoordinatorMetrics()
        self.bound: list[tuple[str, tuple[str, ...]]] = []
        own = credential(self.authority, hosts=hosts)
        chain = own.certificate + self.authority.certificate
        self._credentials = grpc.ssl_server_credentials([(own.key, chain)])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server, self.port = self._call(self._start())

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.port)

    def token(self, name: str = "w1", *, lifetime: float = 600.0, clients: tuple[str, ...] = ()) -> JoinToken:
        """A join token as `ca token` makes one."""
        subject = Subject("f", Role.WORKER, name)
        pin = bytes.fromhex(fingerprint(self.authority.certificate))
        token = JoinToken(subject, str(self.address), pin, new_secret())
        now = time.time()
        self.trust.add_token(
            TokenRecord(
                digest=token.digest,
                holder=Holder(subject.role, subject.name),
                clients=clients,
                created_at=now - 1,
                expires_at=now + lifetime,
            )
        )
        return token

    def outcome(self, outcome: str) -> float:
        labels = {"call": "enroll", "outcome": outcome}
        found = self.metrics.registry.get_sample_value("ssd_coordinator_certificate_requests_total", labels)
        return found or 0.0

    def refusals(self, reason: str) -> float:
        labels = {"call": "enroll", "reason": reason}
        found = self.metrics.registry.get_sample_value("ssd_coordinator_messages_refused_total", labels)
        return found or 0.0

    def cut(self) -> float:
        name = "ssd_coordinator_connections_cut_total"
        return self.metrics.registry.get_sample_value(name, {"port": "enrolment"}) or 0.0

    def close(self) -> None:
        self._call(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.trust.close()

    async def _start(self) -> tuple[EnrolmentServer, int]:
        clock = SystemClock()
        signer = Issuer(authority=self.authority, days=1.0)
        issuer = CertificateIssuer(signer, self.trust, self._bind, clock, self.metrics)
        server = EnrolmentServer(issuer, clock, self.metrics)
        return server, await server.start(ListenAddress(host="127.0.0.1"), self._credentials)

    async def _bind(self, worker: str, clients: Sequence[str]) -> None:
        self.bound.append((worker, tuple(clients)))

    def _call(self, work: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(20)


class RecordingServer:
    """Speaks TLS with a chosen certificate and keeps everything it is sent inside it."""

    def __init__(self, root: Path, own: Credential, chain: bytes = b"") -> None:
        folder = root / "recorder"
        folder.mkdir()
        (folder / "chain.pem").write_bytes(own.certificate + chain)
        (folder / "key.pem").write_bytes(own.key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        self._context.set_alpn_protocols(["h2"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.handshakes = 0
        self.heard = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.port)

    def close(self) -> None:
        """Stop, having read whatever came."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            plain.settimeout(5)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self.handshakes += 1
                    while data := connection.recv(4096):
                        self.heard += data
            except OSError:
                continue
