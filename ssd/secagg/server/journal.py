"""The kept state of an attempt: its messages one after the other, each with its length. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from ssd.secagg.protocol.encoding import LENGTH_BYTES, Reader
from ssd.secagg.protocol.errors import MalformedMessage
from ssd.secagg.protocol.messages import (
    Message,
    Offer,
    Reveal,
    Roster,
    SetProof,
    SetSignature,
    Sharers,
    Survivors,
    decode,
)

MAGIC = b"ssd-secagg-state-v1\0"
Kept = TypeVar("Kept", bound=Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is in a journal."""

    offer: Offer
    roster: Roster
    sharers: Sharers
    survivors: Survivors
    proof: SetProof | None
    signatures: tuple[SetSignature, ...]
    reveals: tuple[Reveal, ...]


def write(messages: Iterable[bytes]) -> bytes:
    """The bytes of encoded messages."""
    return MAGIC + b"".join(len(each).to_bytes(LENGTH_BYTES, "big") + each for each in messages)


def read(content: bytes) -> State:
    """What was written.

    Raises:
        MalformedMessage: it is no such journal, or lacks a message.
    """
    reader = Reader(content)
    if reader.take(min(len(MAGIC), len(content))) != MAGIC:
        raise MalformedMessage("this is no state of an attempt")
    messages = []
    while reader.left:
        messages.append(decode(reader.take(int.from_bytes(reader.take(LENGTH_BYTES), "big"))))
    proofs = [each for each in messages if isinstance(each, SetProof)]
    return State(
        offer=_only(messages, Offer),
        roster=_only(messages, Roster),
        sharers=_only(messages, Sharers),
        survivors=_only(messages, Survivors),
        proof=proofs[0] if proofs else None,
        signatures=tuple(each for each in messages if isinstance(each, SetSignature)),
        reveals=tuple(each for each in messages if isinstance(each, Reveal)),
    )


def _only(messages: list[Message], kind: type[Kept]) -> Kept:
    found = [each for each in messages if isinstance(each, kind)]
    if len(found) != 1:
        raise MalformedMessage(f"a state holds exactly one {kind.__name__}, not {len(found)}")
    return found[0]
