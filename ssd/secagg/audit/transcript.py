"""The public transcript of a round: what everybody was told, in order, hash-chained; nothing in it is secret.

    magic, head of the transcript before (32 bytes, zeros if there is none),
    then for each message: its length (4 bytes, big-endian), its one byte form, the head after it (32 bytes)

The head after a message is SHA-256 over a label, the head before and the message. So a file can only be added to:
whoever knows a head knows everything before it, in this file and in those before. An opened round is Offer, Roster,
Sharers, Survivors, SetProof (level `active`) and Opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ssd.secagg.protocol.encoding import LENGTH_BYTES, Reader
from ssd.secagg.protocol.errors import MalformedMessage
from ssd.secagg.protocol.messages import MAX_MESSAGE_BYTES, Message, decode

MAGIC = b"ssd-secagg-transcript-v1\0"
HEAD_BYTES = 32
NO_HEAD = bytes(HEAD_BYTES)
MAX_BYTES = 8 * MAX_MESSAGE_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """What is in a transcript."""

    before: bytes
    """Head of the transcript it continues; zeros: none."""
    messages: tuple[Message, ...]
    head: bytes
    """After the last message."""


def write(messages: Iterable[bytes], before: bytes = NO_HEAD) -> bytes:
    """The file of encoded messages.

    Args:
        messages: `Aggregator.transcript`.
        before: head of the transcript of the round opened before, 32 bytes.
    """
    content, head = bytearray(MAGIC + before), before
    for message in messages:
        head = _next_head(head, message)
        content += len(message).to_bytes(LENGTH_BYTES, "big") + message + head
    return bytes(content)


def read(content: bytes) -> Transcript:
    """What was written.

    Raises:
        MalformedMessage: no transcript, cut off within a message, or its chain is broken: somebody changed it.
    """
    if len(content) > MAX_BYTES:
        raise MalformedMessage(f"a transcript has at most {MAX_BYTES} bytes, not {len(content)}")
    if not content.startswith(MAGIC):
        raise MalformedMessage("this is no transcript of a round of secure aggregation")
    reader = Reader(content[len(MAGIC) :])
    before = head = reader.take(HEAD_BYTES)
    messages: list[Message] = []
    while reader.left:
        message = reader.take(int.from_bytes(reader.take(LENGTH_BYTES), "big"))
        head = _next_head(head, message)
        if reader.take(HEAD_BYTES) != head:
            raise MalformedMessage(
                f"the chain breaks at message {len(messages) + 1}: the transcript was changed"
            )
        messages.append(decode(message))
    return Transcript(before=before, messages=tuple(messages), head=head)


def _next_head(head: bytes, message: bytes) -> bytes:
    return hashlib.sha256(b"ssd-secagg-chain-v1\0" + head + message).digest()
