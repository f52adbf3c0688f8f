"""Meeting a coordinator of which nothing is known but a pin.

`meet` makes a TLS handshake without trusting anybody, and sends nothing. The authority that the pin is of must be among
the certificates the other side shows. Anybody could show it, so a second handshake that trusts exactly this authority
must succeed too, for the name that was dialled. Only then is there somebody to talk to, over a connection that again
trusts nobody else.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

PATIENCE_SECONDS = 10.0
_OTHER_NAME = frozenset({62, 63, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, EMAIL, IP_ADDRESS


class ContactFailed(ConnectionError):
    """Nobody answers there, or not in TLS."""


class StrangerMet(Exception):
    """Who answers has no certificate of the authority the pin is of."""


class OtherNameMet(Exception):
    """Who answers is the right one, but its certificate does not carry the name it was called by."""


def meet(
    host: str, port: int, pin: bytes, *, name: str = "", patience: float = PATIENCE_SECONDS, proxy: str = ""
) -> bytes:
    """The PEM certificate of the authority with this pin, as shown by whoever answers.

    Args:
        host: where.
        port: where.
        pin: SHA-256 of the authority's certificate.
        name: what to call the server in the handshake; empty: its host.
        patience: seconds for each step.
        proxy: URL of an HTTP CONNECT proxy that leads there; empty: directly.

    Raises:
        ContactFailed: nobody answers, or not in TLS 1.3.
        StrangerMet: somebody else does.
        OtherNameMet: its certificate does not carry the name.
    """
    looking = _context()
    looking.check_hostname = False
    looking.verify_mode = ssl.CERT_NONE
    with _connection(looking, host, port, name, patience, proxy) as connection:
        shown = _chain(connection)
    for certificate in shown:
        if hmac.compare_digest(hashlib.sha256(certificate).digest(), pin):
            authority = ssl.DER_cert_to_PEM_cert(certificate)
            break
    else:
        raise StrangerMet
    trusting = _context()
    trusting.load_verify_locations(cadata=authority)
    with _connection(trusting, host, port, name, patience, proxy):
        return authority.encode()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    return context


@contextlib.contextmanager
def _connection(
    context: ssl.SSLContext, host: str, port: int, name: str, patience: float, proxy: str
) -> Iterator[ssl.SSLSocket]:
    try:
        with (
            _connect(host, port, patience, proxy) as plain,
            context.wrap_socket(plain, server_hostname=name or host) as connection,
        ):
            yield connection
    except ssl.SSLCertVerificationError as error:
        raise (OtherNameMet if error.verify_code in _OTHER_NAME else StrangerMet)(
            error.verify_message
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ContactFailed(str(error) or type(error).__name__) from error


def _connect(host: str, port: int, patience: float, proxy: str) -> socket.socket:
    """A connection to a host and port, through a proxy if there is one. TLS is not begun yet."""
    if not proxy:
        return socket.create_connection((host, port), patience)
    try:
        way = urlsplit(proxy)
        way_port = way.port or 80
    except ValueError:
        # Whatever is wrong, a part of the password may stand in it.
        raise ContactFailed(
            "the proxy's address is none: write http://host:port, signs in a password as %XX"
        ) from None
    if not way.hostname:
        raise ContactFailed("the proxy's address has no host")
    headers = {}
    if way.username is not None:
        secret = f"{unquote(way.username)}:{unquote(way.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
    tunnel = http.client.HTTPConnection(way.hostname, way_port, timeout=patience)
    tunnel.set_tunnel(host, port, headers)
    try:
        tunnel.connect()
    except (OSError, http.client.HTTPException) as error:
        tunnel.close()
        # Without a password that may stand in the URL.
        raise ContactFailed(f"through the proxy {way.hostname}:{way_port}: {error}") from error
    connected: socket.socket = tunnel.sock
    return connected


def _chain(connection: ssl.SSLSocket) -> list[bytes]:
    """What the other side showed, DER. Public from Python 3.13 on; before that only the object behind it knows."""
    public: Any = getattr(connection, "get_unverified_chain", None)
    if public is not None:
        return [bytes(certificate) for certificate in public()]
    import _ssl

    inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
    return [
        bytes(certificate.public_bytes(_ssl.ENCODING_DER))
        for certificate in inner.get_unverified_chain() or ()
    ]
