"""HTTP/2 and gRPC framing by hand: what no gRPC library would ever send.

One connection, frames as bytes. Header blocks go up as literals without indexing; of what comes back only the frames'
types and sizes are understood, and the few headers of gRPC that its C core writes as plain text.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_FRAME = 16384
PATIENCE = 30.0


@dataclass(frozen=True)
class Frame:
    """One frame of the peer."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass(frozen=True)
class Ending:
    """How a stream or its connection ended."""

    status: int | None
    """grpc-status; None if the trailers never came."""
    message: str
    reason: str
    """ssd-reason; empty for what gRPC itself refuses."""
    goaway: str
    """Debug data of a GOAWAY; empty without one."""
    closed: bool
    """Whether the connection is gone."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame on the wire."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header_block(headers: list[tuple[str, str]]) -> bytes:
    """Literals without indexing; no text may be longer than 126 + 127 bytes."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, head = len(data) - 127, b"\x7f"
    while rest > 127:
        head += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    return head + bytes((rest,)) + data


def message(data: bytes, *, compressed: bool = False, declared: int | None = None) -> bytes:
    """A gRPC message with its prefix, which may lie about the length."""
    return struct.pack(">BI", compressed, len(data) if declared is None else declared) + data


class RawHttp2:
    """A connection that has sent its preface and settings; without TLS unless there is a `tls`."""

    def __init__(
        self, port: int, *, preface: bool = True, window: int = 1 << 30, tls: ssl.SSLContext | None = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._buffer = b""
        self._streams = -1
        self.frames: list[Frame] = []
        self.credit = {0: 65535}
        """What the peer lets us send: of the connection (0) and of each stream."""
        self._initial = 65535
        self.closed = False
        self._speaks = preface
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, min(window, 2**31 - 1))))
            if window > 65535:
                self.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window - 65535)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Bytes as they are; nothing happens once the peer has gone."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def call(self, path: str, *, headers: tuple[tuple[str, str], ...] = ()) -> int:
        """Begin a call; its stream."""
        self._streams += 2
        block = header_block(
            [
                (":method", "POST"),
                (":scheme", "https" if isinstance(self.socket, ssl.SSLSocket) else "http"),
                (":path", path),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                *headers,
            ]
        )
        self.credit[self._streams] = self._initial
        self.send(frame(HEADERS, END_HEADERS, self._streams, block))
        return self._streams

    def data(self, stream: int, payload: bytes, *, end: bool = False, patience: float = PATIENCE) -> int:
        """Send a payload as the peer's flow control allows; how many bytes of it went out."""
        sent, deadline = 0, time.monotonic() + patience
        while sent < len(payload) and not self.closed:
            room = min(self.credit[0], self.credit[stream], MAX_FRAME, len(payload) - sent)
            if room <= 0:
                reset = any(each.stream == stream and each.kind == RST_STREAM for each in self.frames)
                if reset or (not self.pump(0.2) and time.monotonic() > deadline):
                    break
                continue
            last = end and sent + room == len(payload)
            self.send(frame(DATA, END_STREAM if last else 0, stream, payload[sent : sent + room]))
            sent += room
            self.credit[0] -= room
            self.credit[stream] -= room
            self.pump(0)
        return sent

    def pump(self, timeout: float) -> bool:
        """Read what has come; False if nothing came in time."""
        self.socket.settimeout(max(timeout, 0.0001))
        try:
            came = self.socket.recv(1 << 16)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            came = b""
        finally:
            self.socket.settimeout(PATIENCE)
        if not came:
            self.closed = True
            return False
        self._buffer += came
        for each in self._parse():
            self.frames.append(each)
            self._obey(each)
        return True

    def _parse(self) -> Iterator[Frame]:
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + size:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9], "big") & 0x7FFFFFFF
            payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
            yield Frame(kind, flags, stream, payload)

    def _obey(self, got: Frame) -> None:
        if not self._speaks:
            return
        if got.kind == SETTINGS and not got.flags & ACK:
            for place in range(0, len(got.payload), 6):
                key, value = struct.unpack_from(">HI", got.payload, place)
                if key == 4:
                    for stream in self.credit:
                        if stream:
                            self.credit[stream] += value - self._initial
                    self._initial = value
            self.send(frame(SETTINGS, ACK, 0))
        elif got.kind == PING and not got.flags & ACK:
            self.send(frame(PING, ACK, 0, got.payload))
        elif got.kind == WINDOW_UPDATE and got.stream in self.credit:
            self.credit[got.stream] += int.from_bytes(got.payload, "big")

    def ending(self, stream: int = 0, patience: float = PATIENCE) -> Ending:
        """Wait until the stream (0: the connection) has ended."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not self.closed:
            over = [
                each
                for each in self.frames
                if each.stream == stream
                and stream
                and (each.kind == RST_STREAM or (each.kind in (HEADERS, DATA) and each.flags & END_STREAM))
            ]
            if over:
                break
            self.pump(0.2)
        block = b"".join(
            each.payload
            for each in self.frames
            if each.kind in (HEADERS, CONTINUATION) and each.stream == stream
        )
        goaway = next((each.payload[8:].decode() for each in self.frames if each.kind == GOAWAY), "")
        status = _header(block, b"grpc-status")
        return Ending(
            status=int(status) if status else None,
            message=_header(block, b"grpc-message"),
            reason=_header(block, b"ssd-reason"),
            goaway=goaway,
            closed=self.closed,
        )


def _header(block: bytes, name: bytes) -> str:
    found = re.search(re.escape(name) + rb"(.)", block, re.DOTALL)
    if found is None:
        return ""
    size = found[1][0]
    return block[found.end() : found.end() + size].decode("latin-1")
