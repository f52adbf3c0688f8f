"""A gRPC client by hand over Python's `ssl`: it speaks the TLS version it is told to, which grpcio's cannot."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

from ssd.trust.authority import Credential

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
ACK = END_STREAM = 1
END_HEADERS = 4
PATIENCE = 20.0


def call(
    port: int,
    authority: bytes,
    own: Credential | None,
    scratch: Path,
    method: str,
    message: bytes,
    version: ssl.TLSVersion,
) -> bytes:
    """Everything the server answered on the stream, headers undecoded: gRPC writes them without compression.

    `authority` (PEM) is whom the caller trusts, `own` what it shows, if anything.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=authority.decode())
    if own is not None:
        file = scratch / "own.pem"
        file.write_bytes(own.certificate + own.key)
        context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(
            PREFACE + _frame(SETTINGS, 0, 0, b"") + _frame(HEADERS, END_HEADERS, 1, _headers(method))
        )
        body = b"\0" + struct.pack(">I", len(message)) + message
        secure.sendall(_frame(DATA, END_STREAM, 1, body))
        return _answer(secure)


def _answer(secure: ssl.SSLSocket) -> bytes:
    answer = b""
    while True:
        head = _exactly(secure, 9)
        kind, flags = head[3], head[4]
        stream = struct.unpack(">I", head[5:])[0]
        payload = _exactly(secure, int.from_bytes(head[:3], "big"))
        if kind in (SETTINGS, PING) and not flags & ACK:
            secure.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
        if stream == 1:
            answer += payload
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                return answer


def _exactly(secure: ssl.SSLSocket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = secure.recv(count - len(data))
        assert more, "the server hung up"
        data += more
    return data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _headers(method: str) -> bytes:
    """HPACK (RFC 7541) with literals only, but for :method POST and :scheme https of the static table."""
    path = method.encode()
    fields = (
        b"\x83\x87",
        b"\x04" + bytes([len(path)]) + path,
        b"\x01\x09localhost",
        b"\x0f\x10\x10application/grpc",
        b"\x00\x02te\x08trailers",
    )
    return b"".join(fields)
