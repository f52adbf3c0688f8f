"""What the ports are secured with, and looking at the files again when the operator says so (SIGHUP)."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from coordinator.config.sections import TransportSection
from coordinator.errors import IdentityUnusable
from coordinator.identity.caller import CertificateIdentity, ClaimedIdentity
from coordinator.ports.clock import Clock
from coordinator.ports.identity import Identity
from coordinator.rpc.serving.credentials import ServerIdentity
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.logs import event as log_event
from ssd.trust.identity_files import IdentityFiles

log = logging.getLogger(__name__)


class Transport:
    """Mutual TLS for the protocol's port, unless the operator typed otherwise, and TLS for HTTP, if configured.

    Args:
        section: `[transport]`.
        http: certificate and key for HTTPS; None: plain HTTP.
        clock: for the certificates' dates.
        metrics: told of every look at the files.

    Raises:
        IdentityUnusable: the files cannot be used.
    """

    def __init__(
        self,
        section: TransportSection,
        http: tuple[Path, Path] | None,
        clock: Clock,
        metrics: CoordinatorMetrics,
    ) -> None:
        self._metrics = metrics
        self._own: ServerIdentity | None = None
        self.identity: Identity = ClaimedIdentity()
        if section.insecure:
            detail = "no TLS: whoever reaches the port from this machine may do everything"
            log_event(log, logging.WARNING, "insecure", detail=detail)
        else:
            files = IdentityFiles(
                authority=section.authority, certificate=section.certificate, key=section.key
            )
            self._own = ServerIdentity(files, clock)
            self.identity = CertificateIdentity(self._own.current.subject.federation)
            metrics.certificate(self._own.current.not_after.timestamp())
        self._http_files = http
        self.http: ssl.SSLContext | None = None
        if http is not None:
            self.http = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._load_http()

    @property
    def federation(self) -> str | None:
        """Whose certificates count; None: no TLS."""
        return None if self._own is None else self._own.current.subject.federation

    def credentials(self) -> grpc.ServerCredentials | None:
        """For one port; None: no TLS."""
        return None if self._own is None else self._own.credentials()

    def enrolment_credentials(self) -> grpc.ServerCredentials:
        """For the enrolment port, which exists under TLS only."""
        assert self._own is not None
        return self._own.enrolment_credentials()

    def reload(self) -> None:
        """Take up new files for new connections. Where they cannot be used, the old ones stay, and the log says why."""
        if self._own is not None:
            self._take_up(self._reload_own)
        if self.http is not None:
            self._take_up(self._load_http)

    def _take_up(self, load: Callable[[], str]) -> None:
        try:
            log_event(log, logging.INFO, "certificate_reloaded", certificate=load())
        except IdentityUnusable as error:
            log_event(
                log, logging.ERROR, "certificate_not_reloaded", detail=f"{error}; the old one stays in use"
            )
            self._metrics.certificate_reload(taken=False)
        else:
            self._metrics.certificate_reload(taken=True)

    def _reload_own(self) -> str:
        assert self._own is not None
        identity = self._own.reload()
        self._metrics.certificate(identity.not_after.timestamp())
        return f"{identity.subject.uri} until {identity.not_after:%Y-%m-%d %H:%M} UTC"

    def _load_http(self) -> str:
        assert self.http is not None
        assert self._http_files is not None
        certificate, key = self._http_files
        try:
            # Into a throw-away first: half of a bad pair must not replace half of the good one.
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.http):
                context.load_cert_chain(certificate, key)
        except OSError as error:
            raise IdentityUnusable(
                f"coordinator.http_certificate {certificate} and http_key {key} cannot be used: {error}"
            ) from error
        return str(certificate)
