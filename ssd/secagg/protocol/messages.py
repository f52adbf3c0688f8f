"""The messages of a round of secure aggregation, and the one byte form each of them has.

A message is a version byte, a byte for its kind and its fields (`ssd.secagg.protocol.encoding`). `decode(encode(m)) == m`, and
every other byte string is refused. Names of participants are worker names; sets of names are sorted.

In the order of a round (down: from the coordinator, up: from a participant):

    down  Offer          the attempt and its rules, byte for byte the same for everybody
    up    Advert         two fresh public keys, a nonce, a commitment to the self-mask secret
    down  Roster         all adverts
    up    ShareBundle    for each neighbour a ciphertext with one share of each of the two secrets
    down  ShareDelivery  who shared, and the ciphertexts meant for the recipient
    (up)                 the masked vector, not a message of this module
    down  Survivors      whose masked vectors are in the sum
    up    SetSignature   level `active`: "this is the survivor set I was shown"
    down  SetProof       level `active`: enough of these signatures
    up    Reveal         for each neighbour one share: of its self mask if it survived, of its mask key if it did not
    down  Opened         the end; Aborted and Refused are ends too

`Sharers` is only written to the transcript: what all deliveries of a round have in common.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter

from ssd.secagg.protocol import encoding as form
from ssd.secagg.protocol.encoding import Field
from ssd.secagg.protocol.errors import AbortReason, MalformedMessage
from ssd.secagg.protocol.graph import Level

VERSION = 1
MAX_MESSAGE_BYTES = 4 << 20
MAX_PARTICIPANTS = 10_000
KEY_BYTES = 32
NONCE_BYTES = 12
CIPHERTEXT_BYTES = 80
"""Two 32-byte shares and a 16-byte tag."""


class Graph(StrEnum):
    """Who is whose neighbour."""

    COMPLETE = "complete"
    """Everybody is everybody's."""
    RING = "ring"
    """The k nearest on a ring in random order."""


class Kind(StrEnum):
    """Of which secret a revealed share is."""

    SELF = "self"
    """The self mask's, of a survivor."""
    MASK = "mask"
    """The mask key's, of one that dropped out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """An attempt and its rules."""

    round_id: bytes
    """16 random bytes: never used twice."""
    level: Level
    model_digest: bytes
    """32 bytes: the version that is trained from."""
    config_digest: bytes
    """32 bytes: everything the sum's meaning depends on."""
    round: int
    attempt: int
    participants: int
    """The most there may be."""
    gamma_ppm: int
    """Assumed corrupt fraction, parts per million."""
    delta_ppm: int
    """Tolerated fraction of dropouts, parts per million."""
    graph: Graph
    ring_bits: int
    """Masked values are added modulo 2 to this power."""
    max_total_weight: int
    """The most all clients together can weigh."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advert:
    """What a participant brings to a round. Nothing in it is secret."""

    name: str
    channel_key: bytes
    """X25519, 32 bytes: shares to it are encrypted with."""
    mask_key: bytes
    """X25519, 32 bytes: pairwise masks are agreed with."""
    nonce: bytes
    """32 bytes: the ring's order is drawn from all of them."""
    commitment: bytes
    """32 bytes: to the self-mask secret."""
    signature: bytes
    """Ed25519 (64 bytes) over the offer and all other fields; empty in level `passive`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """All adverts, sorted by name. A participant's index is its place here."""

    adverts: tuple[Advert, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareEntry:
    """One ciphertext: shares of the sender's two secrets for the peer, or the peer's for the recipient."""

    peer: str
    """In a bundle the recipient, in a delivery the sender."""
    nonce: bytes
    """12 bytes."""
    ciphertext: bytes
    """80 bytes, AES-256-GCM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareBundle:
    """Shares for each of the sender's neighbours."""

    sender: str
    entries: tuple[ShareEntry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharers:
    """Who shared its keys (U2)."""

    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareDelivery:
    """Who shared its keys (U2), and what the recipient's neighbours have for it."""

    recipient: str
    sharers: tuple[str, ...]
    entries: tuple[ShareEntry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Survivors:
    """Whose masked vectors are in the sum (U3)."""

    sharers_digest: bytes
    """32 bytes: `ssd.secagg.protocol.keys.sharers_digest`; ties the set to offer, roster and sharers."""
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetSignature:
    """A participant's signature of the survivor set it was shown."""

    name: str
    signature: bytes
    """Ed25519, 64 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetProof:
    """Signatures of one survivor set, sorted by name."""

    signatures: tuple[SetSignature, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RevealedShare:
    """One share of one secret."""

    about: str
    kind: Kind
    share: bytes = field(repr=False)
    """32 bytes, big-endian, below the Shamir prime. Not printed: shares must not reach a log by way of a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reveal:
    """One share for each neighbour that shared its keys, and for the sender itself."""

    name: str
    entries: tuple[RevealedShare, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The sum was opened."""

    opened_digest: bytes
    """32 bytes: SHA-256 of the opened ring vector."""
    survivors: int
    next_model_digest: bytes
    """32 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AbortNotice:
    """The coordinator gave the attempt up."""

    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """The participant does not go on."""

    reason: str
    detail: str

    @classmethod
    def of(cls, reason: AbortReason, detail: str) -> Refusal:
        """With a detail of any length, cut to what a message holds."""
        return cls(reason=reason.value, detail=detail.encode()[:1024].decode(errors="ignore"))


Message = (
    Offer
    | Advert
    | Roster
    | ShareBundle
    | Sharers
    | ShareDelivery
    | Survivors
    | SetSignature
    | SetProof
    | Reveal
    | Opened
    | AbortNotice
    | Refusal
)


class _Choice(form.Text):
    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__(max(map(len, kind)), frozenset(kind).__contains__)
        self._kind = kind

    def read(self, reader: form.Reader) -> StrEnum:
        return self._kind(super().read(reader))


_DIGEST = form.Fixed(32)
_KEY = form.Fixed(KEY_BYTES)
_NAMES = form.Sorted(form.NAME, MAX_PARTICIPANTS)
_ADVERT = form.Record(
    Advert,
    name=form.NAME,
    channel_key=_KEY,
    mask_key=_KEY,
    nonce=form.Fixed(32),
    commitment=_DIGEST,
    signature=form.Bytes(0, 64),
)
_ENTRIES = form.Sorted(
    form.Record(
        ShareEntry, peer=form.NAME, nonce=form.Fixed(NONCE_BYTES), ciphertext=form.Bytes(CIPHERTEXT_BYTES)
    ),
    MAX_PARTICIPANTS,
    attrgetter("peer"),
)
_SIGNATURE = form.Record(SetSignature, name=form.NAME, signature=form.Fixed(64))
_SHARES = form.Sorted(
    form.Record(RevealedShare, about=form.NAME, kind=_Choice(Kind), share=form.Fixed(32)),
    MAX_PARTICIPANTS,
    attrgetter("about"),
)
_FORMS: dict[int, tuple[type, Field]] = {
    number: (kind, shape)
    for number, kind, shape in (
        (
            1,
            Offer,
            form.Record(
                Offer,
                round_id=form.Fixed(16),
                level=_Choice(Level),
                model_digest=_DIGEST,
                config_digest=_DIGEST,
                round=form.U64,
                attempt=form.U64,
                participants=form.U64,
                gamma_ppm=form.U64,
                delta_ppm=form.U64,
                graph=_Choice(Graph),
                ring_bits=form.U64,
                max_total_weight=form.U64,
            ),
        ),
        (2, Advert, _ADVERT),
        (
            3,
            Roster,
            form.Record(Roster, adverts=form.Sorted(_ADVERT, MAX_PARTICIPANTS, attrgetter("name"))),
        ),
        (4, ShareBundle, form.Record(ShareBundle, sender=form.NAME, entries=_ENTRIES)),
        (
            5,
            ShareDelivery,
            form.Record(ShareDelivery, recipient=form.NAME, sharers=_NAMES, entries=_ENTRIES),
        ),
        (6, Survivors, form.Record(Survivors, sharers_digest=_DIGEST, names=_NAMES)),
        (7, SetSignature, _SIGNATURE),
        (
            8,
            SetProof,
            form.Record(SetProof, signatures=form.Sorted(_SIGNATURE, MAX_PARTICIPANTS, attrgetter("name"))),
        ),
        (9, Reveal, form.Record(Reveal, name=form.NAME, entries=_SHARES)),
        (
            10,
            Opened,
            form.Record(Opened, opened_digest=_DIGEST, survivors=form.U64, next_model_digest=_DIGEST),
        ),
        (11, AbortNotice, form.Record(AbortNotice, reason=form.CODE, detail=form.DETAIL)),
        (12, Refusal, form.Record(Refusal, reason=form.CODE, detail=form.DETAIL)),
        (13, Sharers, form.Record(Sharers, names=_NAMES)),
    )
}
_NUMBERS = {kind: number for number, (kind, _) in _FORMS.items()}


def encode(message: Message) -> bytes:
    """The one byte form of a message.

    Raises:
        MalformedMessage: a field has no form: out of range, of a wrong length, not sorted.
    """
    number = _NUMBERS[type(message)]
    into = bytearray((VERSION, number))
    _FORMS[number][1].write(message, into)
    if len(into) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"a message has at most {MAX_MESSAGE_BYTES} bytes, not {len(into)}")
    return bytes(into)


def decode(content: bytes) -> Message:
    """The message of its byte form.

    Raises:
        MalformedMessage: anything but exactly what `encode` would write.
    """
    if len(content) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"a message has at most {MAX_MESSAGE_BYTES} bytes, not {len(content)}")
    reader = form.Reader(bytes(content))
    version, number = reader.take(2)
    if version != VERSION:
        raise MalformedMessage(f"version {version} of the encoding is not known, only {VERSION}")
    if number not in _FORMS:
        raise MalformedMessage(f"there is no message of kind {number}")
    message: Message = _FORMS[number][1].read(reader)
    if reader.left:
        raise MalformedMessage(f"{reader.left} bytes follow the message")
    return message


def digest(message: Message) -> bytes:
    """32 bytes: what other messages and signatures refer to this one by."""
    return hashlib.sha256(b"ssd-secagg-message-v1\0" + encode(message)).digest()
