"""The federation's certificate authority: a key, a certificate, and the leaves it signs (X.509, RFC 5280).

P-256 keys and SHA-256, because every TLS library speaks them. All primitives are `cryptography`'s. Leaves cannot sign,
and the authority's certificate says that it may sign leaves only (path length 0) and only names of its federation
(RFC 5280, 4.2.1.10: a name constraint on the host of the URI).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssd.trust.names import NameRefused, Role, Subject, subject_of

CLOCK_SKEW = dt.timedelta(minutes=5)
"""How far a certificate's validity begins in the past, for clocks that are behind."""
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
LOCAL_NAME = "localhost"
"""What a coordinator is called over a Unix socket."""
LOOPBACK = (LOCAL_NAME, "127.0.0.1", "::1")
"""What a coordinator is called on its own machine and at the near end of a tunnel."""


PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey


class CertificateRefused(ValueError):
    """A certificate, key or request that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def matches(self) -> bool:
        """Whether the key is the certificate's.

        Raises:
            CertificateRefused: one of them is no PEM, or the key is of another kind.
        """
        return bool(private_key(self.key).public_key() == _certificate(self.certificate).public_key())


def new_key() -> PrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM, not encrypted: files are 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def fingerprint(certificate: bytes) -> str:
    """Hex SHA-256 of a PEM certificate's DER form: the authority's pin."""
    return _certificate(certificate).fingerprint(hashes.SHA256()).hex()


def create_authority(federation: str, *, days: float, now: dt.datetime) -> Credential:
    """A new self-signed authority.

    Args:
        federation: its name, the first part of every identity it signs.
        days: how long it is valid.
        now: aware time.

    Raises:
        NameRefused: the name cannot stand in a URI.
    """
    Subject(federation, Role.COORDINATOR, "check")
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, federation)])
    certificate = (
        _builder(name, name, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints(
                permitted_subtrees=[x509.UniformResourceIdentifier(federation)], excluded_subtrees=None
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credential(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key))


def federation_of(authority: bytes) -> str:
    """The federation an authority's PEM certificate signs for.

    Raises:
        CertificateRefused: it is no authority of this program.
    """
    certificate = _certificate(authority)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    constraints = [each.value for each in certificate.extensions if each.oid == x509.OID_BASIC_CONSTRAINTS]
    if len(names) != 1 or not any(each.ca for each in constraints):
        raise CertificateRefused(
            "this is no authority's certificate; take the file ca.pem that `ca init` made"
        )
    return str(names[0].value)


def issue(
    authority: Credential,
    subject: Subject,
    *,
    days: float,
    now: dt.datetime,
    hosts: Sequence[str] = (),
    public_key: ec.EllipticCurvePublicKey | None = None,
) -> Credential:
    """A leaf for `subject`.

    Args:
        authority: who signs.
        subject: of the authority's federation.
        days: how long it is valid, at most until the authority's own end.
        now: aware time.
        hosts: names and addresses a coordinator answers to, beside those of its own machine (`LOOPBACK`).
        public_key: of whoever asked; None: a fresh key, which the credential then holds (otherwise its key is empty).

    Raises:
        CertificateRefused: another federation's subject, a host that is none, or an authority that is not valid.
    """
    federation = federation_of(authority.certificate)
    if subject.federation != federation:
        raise CertificateRefused(f"{subject.uri} is not of the federation {federation!r}")
    issuer = _certificate(authority.certificate)
    own = new_key() if public_key is None else None
    key = own.public_key() if own is not None else public_key
    assert key is not None
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.name)])
    server = subject.role is Role.COORDINATOR
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    answers = dict.fromkeys((*hosts, *LOOPBACK) if server else hosts)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(subject.uri), *map(_host, answers)]
    certificate = (
        _builder(name, issuer.subject, key, days, now, until=issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(private_key(authority.key).public_key()),
            critical=False,
        )
        .sign(private_key(authority.key), hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Credential(pem, b"" if own is None else key_pem(own))


def subject_of_certificate(certificate: bytes) -> Subject:
    """The holder of a PEM certificate. Whether an authority signed it is not checked here.

    Raises:
        CertificateRefused: not a certificate, or one that names nobody.
    """
    try:
        names = _certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return subject_of(names.value.get_values_for_type(x509.UniformResourceIdentifier))
    except (x509.ExtensionNotFound, NameRefused) as error:
        raise CertificateRefused(f"the certificate names nobody: {error}") from error


def serial_of(certificate: bytes) -> str:
    """A PEM certificate's serial number, hex.

    Raises:
        CertificateRefused: not a certificate.
    """
    return f"{_certificate(certificate).serial_number:x}"


def hosts_of(certificate: bytes) -> tuple[str, ...]:
    """The names and addresses a PEM certificate's holder answers to, in the order they were given.

    Raises:
        CertificateRefused: not a certificate.
    """
    for extension in _certificate(certificate).extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            return tuple(
                str(name.value) for name in extension.value if isinstance(name, x509.DNSName | x509.IPAddress)
            )
    return ()


def validity(certificate: bytes) -> tuple[dt.datetime, dt.datetime]:
    """From when to when a PEM certificate is valid, aware.

    Raises:
        CertificateRefused: not a certificate.
    """
    found = _certificate(certificate)
    return found.not_valid_before_utc, found.not_valid_after_utc


def is_signed_by(certificate: bytes, authority: bytes) -> bool:
    """Whether the authority's key made a PEM certificate's signature. Dates and purposes are not looked at.

    Raises:
        CertificateRefused: one of them is no certificate.
    """
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateRefused(f"not a PEM certificate: {error}") from error


def private_key(pem: bytes) -> PrivateKey:
    """An elliptic-curve key from PKCS#8 PEM.

    Raises:
        CertificateRefused: it is none.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateRefused(f"not a PEM private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateRefused("the private key is not an elliptic-curve key")
    return key


def _builder(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: float,
    now: dt.datetime,
    *,
    until: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    end = now + dt.timedelta(days=days)
    if until is not None and until <= now:
        raise CertificateRefused("the authority's own certificate has expired; make a new one with `ca init`")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end if until is None else min(end, until))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise CertificateRefused(
                f"{host!r} is no host: {_why_no_host(host)}; give a name such as fed.example.org, or an address, without"
                " a port"
            ) from None
        return x509.DNSName(host)


def _why_no_host(host: str) -> str:
    """What keeps a text from being a name that a certificate can carry."""
    name, _, port = host.rpartition(":")
    for wrong, why in (
        (not host, "it is empty"),
        ("://" in host, "it is a URL"),
        (host.startswith("["), "brackets belong to addresses with a port"),
        ("*" in host, "a coordinator's certificate names hosts, not patterns"),
        (bool(name) and port.isdigit(), "it has a port"),
        (
            "_" in host,
            (
                "names of hosts have no underscore, and TLS would not accept this one (call the host or service by a name"
                " with - instead)"
            ),
        ),
        (not host.isascii(), "names with other letters are written in their ASCII form (xn--...)"),
        (len(host) > 253, "it is longer than 253 characters"),
        (host.endswith("."), "leave out the dot at its end"),
    ):
        if wrong:
            return why
    return "its parts are 1 to 63 of A-Z a-z 0-9 -, divided by dots, with no - at either end"
