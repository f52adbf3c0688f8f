"""Bytes in and out of gRPC: deserialisers that never raise, and a blob part written without protobuf's copies.

grpcio answers a message its deserialiser cannot parse with UNKNOWN and no trace in our metrics, so ours gives
a `Malformed` instead, which the handler refuses like any other bad message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that is not what the call takes."""

    size: int
    too_large: bool
    """Over the application's own limit (gRPC's hard limit lies above it)."""


def tolerant(message: type[M], limit: int) -> Callable[[bytes], M | Malformed]:
    """A deserialiser of `message` that refuses more than `limit` bytes and never raises."""

    def deserialise(data: bytes) -> M | Malformed:
        if len(data) > limit:
            return Malformed(len(data), too_large=True)
        try:
            return message.FromString(data)
        except (DecodeError, RecursionError, ValueError):
            return Malformed(len(data), too_large=False)

    return deserialise


def varint(value: int) -> bytes:
    """A protobuf varint of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob_part(offset: int, data: bytes) -> bytes:
    """The bytes of `BlobPart(offset=offset, data=data)`, equal to protobuf's (a test compares them)."""
    head = b"" if offset == 0 else b"\x18" + varint(offset)
    return b"".join((head, b"\x22", varint(len(data)), data)) if data else head


def serialise(message: Message | bytes) -> bytes:
    """A serialiser for calls that send both messages and ready-made bytes."""
    return message if isinstance(message, bytes) else message.SerializeToString()
