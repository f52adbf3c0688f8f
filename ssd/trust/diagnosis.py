"""Why a TLS connection comes to nothing, in a sentence.

gRPC says "unavailable" of a coordinator that is down, has another authority, or took one look at our certificate and
hung up. When a connection failed, `diagnose` tries once more with Python's own `ssl` and says what it met. Nothing
but a handshake is sent.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

from ssd.trust.identity_files import IdentityFiles

PATIENCE_SECONDS = 5.0
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID
_OTHER_NAME = frozenset({62, 63, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, EMAIL, IP_ADDRESS
_CLIENT_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""What HTTP/2 begins with, and empty settings: a server that accepts our certificate answers it."""


class Cause(StrEnum):
    """Why. Values are stable: logs and metrics."""

    SPEAKS_NO_TLS = "speaks_no_tls"
    SPEAKS_TLS = "speaks_tls"
    WRONG_AUTHORITY = "wrong_authority"
    NAME_MISMATCH = "name_mismatch"
    CERTIFICATE_EXPIRED = "certificate_expired"
    NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_NOT_ACCEPTED = "certificate_not_accepted"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    cause: Cause
    sentence: str
    """For the operator, with what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Whom to try: `path` of a Unix socket, or `host` and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""
    name: str = ""
    """Which its certificate must carry."""


def diagnose(peer: Peer, files: IdentityFiles | None, patience: float = PATIENCE_SECONDS) -> Diagnosis | None:
    """What keeps this host from talking to a peer that could not be talked to; None: nothing about TLS.

    Args:
        peer: whom.
        files: our identity; None: we speak without TLS.
        patience: seconds for each step. It blocks for so long: call it in a thread.
    """
    try:
        connection = _connect(peer, patience)
    except OSError:
        return None
    with connection:
        return _without_tls(connection) if files is None else _with_tls(connection, peer, files)


def _connect(peer: Peer, patience: float) -> socket.socket:
    if not peer.path:
        return socket.create_connection((peer.host, peer.port), patience)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(patience)
        connection.connect(peer.path)
    except OSError:
        connection.close()
        raise
    return connection


def _without_tls(connection: socket.socket) -> Diagnosis | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent to it: the finding is that it answers in TLS, whoever it is.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            return Diagnosis(
                Cause.SPEAKS_TLS, "the coordinator speaks TLS: leave out --insecure (transport.insecure)"
            )
    except OSError:
        return None


def _with_tls(connection: socket.socket, peer: Peer, files: IdentityFiles) -> Diagnosis | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(files.authority)
        context.load_cert_chain(files.certificate, files.key)
    except OSError:
        return None
    try:
        secure = context.wrap_socket(connection, server_hostname=peer.name)
    except ssl.SSLCertVerificationError as error:
        return _of_its_certificate(error, peer, files)
    except TimeoutError:
        return None
    except OSError:
        return Diagnosis(
            Cause.SPEAKS_NO_TLS,
            "what listens there speaks no TLS 1.3: is it the coordinator, and does it run without --insecure?",
        )
    with secure:
        # In TLS 1.3 the server looks at our certificate after the handshake is over for us.
        try:
            secure.sendall(_CLIENT_PREFACE)
            if secure.recv(1):
                return None
        except TimeoutError:
            return None
        except OSError:
            pass
    return Diagnosis(
        Cause.CERTIFICATE_NOT_ACCEPTED,
        f"the coordinator hung up on the certificate {files.certificate}: it is not of the coordinator's authority, has"
        " expired by its clock, or is not meant for this; have a new one made",
    )


def _of_its_certificate(error: ssl.SSLCertVerificationError, peer: Peer, files: IdentityFiles) -> Diagnosis:
    if error.verify_code in _OTHER_NAME:
        return Diagnosis(
            Cause.NAME_MISMATCH,
            f"the coordinator's certificate does not carry the name {peer.name}: use a name it carries, or have one made"
            " with this one among its hosts",
        )
    if error.verify_code == _EXPIRED:
        return Diagnosis(
            Cause.CERTIFICATE_EXPIRED,
            "the coordinator's certificate has expired: it needs a new one; if it has not, this host's clock is wrong",
        )
    if error.verify_code == _NOT_YET:
        return Diagnosis(
            Cause.NOT_YET_VALID,
            "the coordinator's certificate is not valid yet: is this host's clock right?",
        )
    return Diagnosis(
        Cause.WRONG_AUTHORITY,
        f"the coordinator's certificate was not signed by the authority in {files.authority}"
        f" ({error.verify_message}): is it the right coordinator, and the right federation?",
    )
