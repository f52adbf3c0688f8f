"""One byte form for each message, and nothing else is read."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure.secure_rounds import MODEL, offer_for
from ssd.secagg.protocol.encoding import Bytes, Reader, Sorted, Text
from ssd.secagg.protocol.errors import AbortReason, MalformedMessage, Refused, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    MAX_MESSAGE_BYTES,
    MAX_PARTICIPANTS,
    AbortNotice,
    Advert,
    Kind,
    Message,
    Opened,
    Refusal,
    Reveal,
    RevealedShare,
    Roster,
    SetProof,
    SetSignature,
    ShareBundle,
    ShareDelivery,
    ShareEntry,
    Sharers,
    Survivors,
    decode,
    digest,
    encode,
)

ADVERT = Advert(
    name="a", channel_key=b"c" * 32, mask_key=b"m" * 32, nonce=b"n" * 32, commitment=b"x" * 32, signature=b""
)
ENTRIES = tuple(ShareEntry(peer=peer, nonce=b"n" * 12, ciphertext=b"x" * 80) for peer in ("b", "c"))
SIGNATURES = tuple(SetSignature(name=name, signature=b"s" * 64) for name in ("a", "b"))
SHARES = (
    RevealedShare(about="a", kind=Kind.SELF, share=b"y" * 32),
    RevealedShare(about="b", kind=Kind.MASK, share=b"z" * 32),
)
ALL: list[Any] = [
    offer_for(10),
    ADVERT,
    replace(ADVERT, signature=b"s" * 64),
    Roster(adverts=(ADVERT, replace(ADVERT, name="b"))),
    ShareBundle(sender="a", entries=ENTRIES),
    Sharers(names=("a", "b")),
    ShareDelivery(recipient="a", sharers=("a", "b", "c"), entries=ENTRIES),
    Survivors(sharers_digest=MODEL, names=("a", "b")),
    *SIGNATURES,
    SetProof(signatures=SIGNATURES),
    Reveal(name="a", entries=SHARES),
    Opened(opened_digest=MODEL, survivors=3, next_model_digest=MODEL),
    AbortNotice(reason="deadline", detail="zu spät"),
    Refusal.of(AbortReason.ROUND_SEEN, ""),
]
EVERY = pytest.mark.parametrize("message", ALL, ids=lambda each: type(each).__name__)


@EVERY
def test_what_is_written_is_read(message: Message) -> None:
    again = decode(encode(message))
    assert again == message
    assert type(again) is type(message)


def test_digests_tell_messages_apart() -> None:
    assert len({digest(message) for message in ALL}) == len(ALL)


@EVERY
def test_every_cut_and_every_addition_is_refused(message: Message) -> None:
    content = encode(message)
    for cut in range(len(content)):
        with pytest.raises(MalformedMessage):
            decode(content[:cut])
    with pytest.raises(MalformedMessage):
        decode(content + b"\0")


@EVERY
def test_a_changed_byte_is_another_message_or_none(message: Message) -> None:
    content = encode(message)
    for index in range(len(content)):
        for flip in (1, 0x80):
            changed = content[:index] + bytes([content[index] ^ flip]) + content[index + 1 :]
            try:
                other = decode(changed)
            except MalformedMessage:
                continue
            assert encode(other) == changed
            assert other != message


@settings(max_examples=200, deadline=None)
@given(kind=st.integers(0, 15), tail=st.binary(max_size=400))
def test_any_bytes_are_one_message_or_refused(kind: int, tail: bytes) -> None:
    content = bytes((1, kind)) + tail
    try:
        message = decode(content)
    except MalformedMessage:
        return
    assert encode(message) == content


WRONG: dict[str, Any] = {
    "a number that is negative": replace(offer_for(10), round=-1),
    "a number that is too large": replace(offer_for(10), round=1 << 64),
    "a number that is none": replace(offer_for(10), round=True),
    "an id that is too short": replace(offer_for(10), round_id=b"short"),
    "bytes that are none": replace(offer_for(10), round_id=bytearray(16)),
    "an unknown level": replace(offer_for(10), level="other"),
    "a level that is no text": replace(offer_for(10), level=1),
    "a name that is none": replace(ADVERT, name=""),
    "a name with a newline": replace(ADVERT, name="a\n"),
    "a name that is too long": replace(ADVERT, name="a" * 65),
    "a signature of another length": replace(ADVERT, signature=b"s" * 63),
    "a ciphertext of another length": ShareBundle(
        sender="a", entries=(replace(ENTRIES[0], ciphertext=b"x" * 81),)
    ),
    "names that are not sorted": Sharers(names=("b", "a")),
    "a name twice": Sharers(names=("a", "a")),
    "a list that is none": Sharers(names=["a"]),  # type: ignore[arg-type]
    "a record of another kind": Roster(adverts=(SIGNATURES[0],)),  # type: ignore[arg-type]
    "too many names": Sharers(names=tuple(f"{index:05}" for index in range(MAX_PARTICIPANTS + 1))),
    "adverts not sorted": Roster(adverts=(replace(ADVERT, name="b"), ADVERT)),
    "shares not sorted": Reveal(name="a", entries=SHARES[::-1]),
    "a reason that is no code": AbortNotice(reason="No Code", detail=""),
    "a text with half a character": AbortNotice(reason="deadline", detail="\ud800"),
    "a text that is too long": AbortNotice(reason="deadline", detail="x" * 1025),
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_what_has_no_form_is_not_written(message: Message) -> None:
    with pytest.raises(MalformedMessage):
        encode(message)


def written(*parts: bytes) -> bytes:
    return b"".join(parts)


def test_what_has_no_form_is_not_read() -> None:
    name = b"\0\0\0\1a"
    sharers = bytes((1, 13))
    for bad in (
        bytes((2, 13)) + bytes(4),
        bytes((1, 0)) + bytes(4),
        bytes((1, 14)) + bytes(4),
        written(sharers, b"\0\0\0\2", name, name),
        written(sharers, b"\0\0\0\2", b"\0\0\0\1b", name),
        written(sharers, b"\0\0\0\1", b"\0\0\0\1\xff"),
        written(sharers, b"\0\0\0\1", b"\0\0\0\1 "),
        written(sharers, b"\0\0\0\1", b"\xff\xff\xff\xff"),
    ):
        with pytest.raises(MalformedMessage):
            decode(bad)


def test_sizes_and_kinds_that_a_field_does_not_have_are_refused_both_ways() -> None:
    """All the bytes are there, and nothing follows: only the field itself can object."""
    sized, short = Bytes(0, 64), Text(4)
    for field, value in ((sized, bytes(5)), (short, b"abcde")):
        encoded = len(value).to_bytes(4, "big") + value
        with pytest.raises(MalformedMessage, match="must have one of|at most 4"):
            field.read(Reader(encoded))
    three = bytearray()
    Sorted(short, 3).write(("a", "b", "c"), three)
    with pytest.raises(MalformedMessage, match="more than allowed"):
        Sorted(short, 2).read(Reader(bytes(three)))
    for field, other in ((sized, "x" * 64), (sized, bytes(5)), (short, 5), (short, b"ab"), (short, "abcde")):
        with pytest.raises(MalformedMessage):
            field.write(other, bytearray())


def test_a_claim_of_many_items_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        for kind in (3, 4, 5, 6, 8, 9, 13):
            for claim in (b"\xff\xff\xff\xff", MAX_PARTICIPANTS.to_bytes(4, "big")):
                with pytest.raises(MalformedMessage):
                    decode(bytes((1, kind)) + (b"\0\0\0\1a" if kind in (4, 5, 9) else b"") + claim)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_message_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(MalformedMessage, match="at most"):
        decode(bytes(MAX_MESSAGE_BYTES + 1))


def test_the_largest_roster_fits() -> None:
    adverts = tuple(
        replace(ADVERT, name=f"{index:064}", signature=b"s" * 64) for index in range(MAX_PARTICIPANTS)
    )
    assert len(encode(Roster(adverts=adverts))) < MAX_MESSAGE_BYTES


def test_a_refusal_of_any_length_fits() -> None:
    for detail in ("x" * 5000, "ä" * 5000):
        assert decode(encode(Refusal.of(AbortReason.ABANDONED, detail)))


def test_reasons_are_stable_codes_and_each_is_said_once() -> None:
    assert all(reason.value == reason.name.lower() for reason in AbortReason)
    assert str(Refused(AbortReason.ABANDONED, "late")) == "abandoned: late"
    assert str(Rejected(AbortReason.ABANDONED)) == "abandoned"
    assert MalformedMessage("x").reason is AbortReason.MALFORMED_MESSAGE
    assert Level("active") is Level.ACTIVE
