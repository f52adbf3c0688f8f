"""A throw-away authority for tests, and channels with its certificates."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ssd.federation.identities import Identities
from ssd.trust.authority import Credential, issue
from ssd.trust.names import Role, Subject


class Pki(Identities):
    """What `ssd-coordinator ca init` makes in a folder, with the authority's key at hand."""

    def __init__(self, folder: Path, federation: str = "test") -> None:
        super().__init__(folder, dt.datetime.now(dt.UTC), federation)

    def credentials(self, role: Role, name: str) -> grpc.ChannelCredentials:
        return self.showing(self.issued(role, name))

    def showing(self, own: Credential) -> grpc.ChannelCredentials:
        """A client that trusts this authority and shows this certificate, whoever made it."""
        return grpc.ssl_channel_credentials(self.authority, own.key, own.certificate)

    def issued_at(self, role: Role, name: str, now: dt.datetime, days: float = 1.0) -> Credential:
        """A certificate as it would have been made at another time."""
        return issue(self._authority, Subject(self.federation, role, name), days=days, now=now)

    def naming(self, *uris: str) -> Credential:
        """A client's certificate that this authority signed and that names anybody, or nobody."""
        issuer = x509.load_pem_x509_certificate(self.authority)
        signing = serialization.load_pem_private_key(self._authority.key, password=None)
        own = self.issued(Role.WORKER, "x")
        template = x509.load_pem_x509_certificate(own.certificate)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))  # a common name without alternatives would be taken for a host
            .issuer_name(issuer.subject)
            .public_key(template.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(template.not_valid_before_utc)
            .not_valid_after(template.not_valid_after_utc)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(signing, hashes.SHA256())
        return Credential(certificate.public_bytes(serialization.Encoding.PEM), own.key)

    def context(self, role: Role, name: str, scratch: Path) -> ssl.SSLContext:
        """The same for Python's own TLS, with ALPN of HTTP/2; `scratch` gets a file."""
        own, file = self.issued(role, name), scratch / f"{name}.pem"
        file.write_bytes(own.certificate + own.key)
        context = ssl.create_default_context(cadata=self.authority.decode())
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2"])
        return context

    def server_credentials(self) -> grpc.ServerCredentials:
        own = self.issued(Role.COORDINATOR, "coordinator")
        return grpc.ssl_server_credentials(
            [(own.key, own.certificate)], self.authority, require_client_auth=True
        )

    def server_credentials_without_clients(self) -> grpc.ServerCredentials:
        """A server that shows the coordinator's certificate and asks for none."""
        own = self.issued(Role.COORDINATOR, "coordinator")
        return grpc.ssl_server_credentials([(own.key, own.certificate)])


def open_channel(
    address: str, pki: Pki | None, role: Role, name: str, options: Sequence[tuple[str, Any]] = ()
) -> grpc.Channel:
    """A channel as somebody; without an authority, without TLS."""
    if pki is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, pki.credentials(role, name), options)
