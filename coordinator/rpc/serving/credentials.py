"""The coordinator's side of mutual TLS: its certificate, the authority it trusts, and taking up new ones.

gRPC asks for the present files before every handshake, so a new certificate is in use for the next connection; those
that stand are not disturbed. Files that cannot be used change nothing.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import grpc

from coordinator.errors import IdentityUnusable
from coordinator.ports.clock import Clock
from ssd.trust.authority import CertificateRefused
from ssd.trust.identity_files import Identity, IdentityFiles, IdentityMissing, read_identity
from ssd.trust.names import Role


class ServerIdentity:
    """What the server shows and whom it trusts, as of the last good look at the files.

    Raises:
        IdentityUnusable: the files cannot be used.
    """

    def __init__(self, files: IdentityFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._identity = _read(files, clock)
        self._generation = 0

    @property
    def current(self) -> Identity:
        """The identity in use."""
        return self._identity

    def reload(self) -> Identity:
        """Look at the files again.

        Raises:
            IdentityUnusable: the new ones cannot be used; the old ones stay in use.
        """
        new = _read(self._files, self._clock)
        old = self._identity.subject.federation
        if new.subject.federation != old:
            raise IdentityUnusable(
                f"{self._files.authority} is now the authority of {new.subject.federation!r}, not {old!r}: another"
                " federation takes another state_dir and a new start"
            )
        with self._lock:
            self._identity = new
            self._generation += 1
        return new

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one port; every port needs its own."""
        return self._credentials(_configuration, callers_are_known=True)

    def enrolment_credentials(self) -> grpc.ServerCredentials:
        """The same for the port of those who have no certificate yet: they are asked for none, and are shown the
        authority's, which is all they know the coordinator by.
        """
        return self._credentials(_enrolment_configuration, callers_are_known=False)

    def _credentials(
        self,
        configuration: Callable[[Identity], grpc.ServerCertificateConfiguration],
        *,
        callers_are_known: bool,
    ) -> grpc.ServerCredentials:
        seen = self._generation

        def news() -> Any:  # None: nothing new, which the stubs do not know
            nonlocal seen
            with self._lock:
                if seen == self._generation:
                    return None
                seen = self._generation
                return configuration(self._identity)

        with self._lock:
            now = configuration(self._identity)
        return grpc.dynamic_ssl_server_credentials(now, news, callers_are_known)


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    own = identity.credential
    return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], identity.authority)


def _enrolment_configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    own = identity.credential
    return grpc.ssl_server_certificate_configuration([(own.key, own.certificate + identity.authority)])


def _read(files: IdentityFiles, clock: Clock) -> Identity:
    try:
        identity = read_identity(files, dt.datetime.fromtimestamp(clock.wall(), dt.UTC))
    except IdentityMissing as error:
        raise IdentityUnusable(
            f"{error}. Make the federation's certificates with `ssd-coordinator ca init --out pki --host NAME`, say in"
            " [transport] where they are, or, on this machine alone, go without with --insecure"
        ) from error
    except CertificateRefused as error:
        raise IdentityUnusable(f"{error}. Have a new one made with `ssd-coordinator ca issue`") from error
    if identity.subject.role is not Role.COORDINATOR:
        raise IdentityUnusable(
            f"{files.certificate} is the certificate of {identity.subject.uri}; the coordinator needs its own"
        )
    return identity
