"""Bytes in and out of gRPC: deserialisers that never raise, and chunks read and written without protobuf's copies.

grpcio answers a message its deserialiser cannot parse with UNKNOWN and no trace in our metrics, so ours returns
a `Malformed` instead of raising it, which the handler refuses like any other bad message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire.errors import Malformed

M = TypeVar("M", bound=Message)


def tolerant(message: type[M], limit: int) -> Callable[[bytes], M | Malformed]:
    """A deserialiser of `message` that refuses more than `limit` bytes and never raises."""

    def deserialise(data: bytes) -> M | Malformed:
        if len(data) > limit:
            # The application's own limit; gRPC's hard limit lies above it.
            detail = f"a message of {len(data)} bytes is over the limit"
            return Malformed(detail, reason="message_too_large")
        try:
            return message.FromString(data)
        except (DecodeError, RecursionError, ValueError):
            return Malformed("the message is not what this call takes")

    return deserialise


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """An `UploadPart` that is a chunk; `data` is a view of the received bytes."""

    offset: int
    data: memoryview


def upload_part(limit: int) -> Callable[[bytes], Message | ChunkPart | Malformed]:
    """A deserialiser of `UploadPart` like `tolerant`, but a chunk in its usual encoding is not copied.

    Through a message object every mebibyte would be in memory twice more while it is looked at.
    """
    general = tolerant(pb.UploadPart, limit)

    def deserialise(data: bytes) -> Message | ChunkPart | Malformed:
        part = _chunk_part(memoryview(data)) if len(data) <= limit else None
        return general(data) if part is None else part

    return deserialise


def _chunk_part(view: memoryview) -> ChunkPart | None:
    """Exactly what serialising `UploadPart(chunk=Chunk(offset, data))` gives; None for anything else."""
    length, position = _field(view, 0, 0x12)  # UploadPart.chunk
    if position == 0 or length != len(view) - position:
        return None
    offset, position = _field(view, position, 0x08)  # Chunk.offset; left out if 0
    length, start = _field(view, position, 0x12)  # Chunk.data
    if start == position or length != len(view) - start or offset >= 1 << 64:
        return None
    return ChunkPart(offset, view[start:])


def _field(view: memoryview, position: int, tag: int) -> tuple[int, int]:
    """The varint behind `tag` and where it ends; (0, position) if there is none here."""
    if position >= len(view) or view[position] != tag:
        return 0, position
    value = 0
    for place, byte in enumerate(view[position + 1 : position + 11]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 2
    return 0, position


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
