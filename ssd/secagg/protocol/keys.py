"""The keys of a round: fresh ones, bound to the round's context, gone with it.

Every key is derived by HKDF-SHA256 (RFC 5869) with a 32-byte context as salt and a label and names as info:

    round context  = SHA-256(label, digest of the offer, digest of the roster)
    sharers digest = SHA-256(label, round context, names of the sharers)

    share channel  HKDF(X25519(channel keys), salt = round context, "share-channel", sender, recipient)
    pair mask      HKDF(X25519(mask keys), salt = sharers digest, "pair-mask", both names in order)
    self mask      HKDF(self-mask secret, salt = sharers digest, "self-mask", name)
    ring order     HKDF(all nonces in roster order, salt = round context, "graph")

The offer names model and configuration: whoever was told another one derives other keys, and masks do not cancel.
What is shared among the neighbours is a 32-byte seed the X25519 mask key is made from, and the self-mask secret; both
are elements of Shamir's field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ssd.secagg.protocol import shamir
from ssd.secagg.protocol.messages import KEY_BYTES, Offer, Roster, Sharers, digest, encode

_FIELD = 2**255 - 19
_PROBE = X25519PrivateKey.from_private_bytes(b"ssd-secagg-small-order-probe-key")


class BadKey(ValueError):
    """A public key no secret can be agreed with."""


class BadCiphertext(ValueError):
    """Not encrypted for this round, sender and recipient, or no shares."""


def hkdf(secret: bytes, salt: bytes, label: str, *names: bytes) -> bytes:
    """32 bytes of HKDF-SHA256; the label and every name enter with their length, so no two uses share an input."""
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (label.encode(), *names))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"ssd-secagg-v1\0" + info).derive(
        secret
    )


def round_context(offer: Offer, roster: Roster) -> bytes:
    """32 bytes that stand for offer and roster."""
    return hashlib.sha256(b"ssd-secagg-context-v1\0" + digest(offer) + digest(roster)).digest()


def sharers_digest(context: bytes, sharers: Sequence[str]) -> bytes:
    """32 bytes that stand for offer, roster and the sorted names of those who shared."""
    names = encode(Sharers(names=tuple(sharers)))
    return hashlib.sha256(b"ssd-secagg-sharers-v1\0" + context + names).digest()


def commitment(offer_digest: bytes, name: str, self_secret: bytes) -> bytes:
    """32 bytes that bind a participant to its self-mask secret and say nothing about it."""
    parts = offer_digest + len(name.encode()).to_bytes(4, "big") + name.encode() + self_secret
    return hashlib.sha256(b"ssd-secagg-commitment-v1\0" + parts).digest()


def mask_private(mask_seed: bytes) -> X25519PrivateKey:
    """The mask key that a shared seed stands for."""
    return X25519PrivateKey.from_private_bytes(hkdf(mask_seed, b"", "mask-private"))


def public_of(private: X25519PrivateKey) -> bytes:
    """The public part, 32 bytes."""
    return private.public_key().public_bytes_raw()


def check_public(public: bytes) -> None:
    """Refuse a public key that is not the one spelling of a point of large order (RFC 7748, section 6.1).

    Raises:
        BadKey: agreement with it would be predictable, or it is a second spelling of another key.
    """
    if int.from_bytes(public, "little") >= _FIELD:
        raise BadKey("a public key is not below 2^255 - 19")
    agree(_PROBE, public)


def is_public(public: bytes) -> bool:
    """Whether `check_public` has nothing against it."""
    try:
        check_public(public)
    except BadKey:
        return False
    return True


def agree(private: X25519PrivateKey, public: bytes) -> bytes:
    """The shared secret, 32 bytes.

    Raises:
        BadKey: a point of small order.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise BadKey("a public key is a point of small order") from error


def channel_key(
    private: X25519PrivateKey, public: bytes, context: bytes, sender: str, recipient: str
) -> bytes:
    """What shares from `sender` to `recipient` are encrypted with: one key, one message."""
    return hkdf(agree(private, public), context, "share-channel", sender.encode(), recipient.encode())


def pair_key(private: X25519PrivateKey, public: bytes, sharers: bytes, one: str, other: str) -> bytes:
    """The mask two participants have in common; both derive the same from either side."""
    first, second = sorted((one, other))
    return hkdf(agree(private, public), sharers, "pair-mask", first.encode(), second.encode())


def pair_sign(own: str, other: str) -> int:
    """With which sign a participant adds the mask it has in common with another: they cancel in the sum."""
    return 1 if own < other else -1


def self_key(self_secret: bytes, sharers: bytes, name: str) -> bytes:
    """The mask of one participant alone."""
    return hkdf(self_secret, sharers, "self-mask", name.encode())


def ring_seed(context: bytes, roster: Roster) -> bytes:
    """What the ring's order is drawn from: nobody knows it before the roster stands."""
    return hkdf(b"".join(advert.nonce for advert in roster.adverts), context, "graph")


def rounding_key(secret: bytes, *, run_id: str, round: int, base_digest: bytes, client: str) -> bytes:  # noqa: A002
    """What a client's update is rounded with: the same values again rather than two vectors under one mask.

    Args:
        secret: 32 bytes the participant keeps for itself.
        run_id: of the run.
        round: of the update.
        base_digest: of the version trained from.
        client: whose update.
    """
    number = round.to_bytes(8, "big")
    return hkdf(secret, base_digest, "rounding", run_id.encode(), number, client.encode())


def seal(key: bytes, nonce: bytes, about: bytes, self_share: bytes, mask_share: bytes) -> bytes:
    """Two 32-byte shares, encrypted (AES-256-GCM). `about` as made by `associated`."""
    return AESGCM(key).encrypt(nonce, self_share + mask_share, about)


def unseal(key: bytes, nonce: bytes, about: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """The share of the self-mask secret and the one of the mask seed.

    Raises:
        BadCiphertext: it was not sealed with this key for this purpose, or a share is no element of the field.
    """
    try:
        opened = AESGCM(key).decrypt(nonce, ciphertext, about)
    except (InvalidTag, ValueError) as error:
        raise BadCiphertext("the ciphertext was not made for this round, sender and recipient") from error
    shares = opened[:32], opened[32:]
    if len(opened) != 64 or not all(is_element(share) for share in shares):
        raise BadCiphertext("the ciphertext holds no shares")
    return shares


def associated(context: bytes, sender: str, recipient: str) -> bytes:
    """What a ciphertext of shares is bound to beside its key."""
    names = b"".join(len(name.encode()).to_bytes(4, "big") + name.encode() for name in (sender, recipient))
    return b"ssd-secagg-shares-v1\0" + context + names


def is_element(share: bytes) -> bool:
    """Whether 32 bytes are below Shamir's prime."""
    return int.from_bytes(share, "big") < shamir.P
