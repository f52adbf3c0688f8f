"""What one participant draws for one round and shows nobody, and what it makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.protocol import keys, shamir
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    KEY_BYTES,
    NONCE_BYTES,
    Advert,
    Offer,
    ShareBundle,
    ShareEntry,
    digest,
)
from ssd.secagg.protocol.shamir import Entropy

Shares = tuple[bytes, bytes]
"""One of a self-mask secret, one of a mask seed."""


class RoundKeys:
    """A channel key, a mask seed and a self-mask secret. Not to be printed, copied or pickled.

    Args:
        name: of the participant.
        entropy: n secret uniform bytes.
    """

    __slots__ = ("_channel", "_entropy", "_mask_seed", "_name", "_self_secret")

    def __init__(self, name: str, entropy: Entropy) -> None:
        self._name = name
        self._entropy = entropy
        self._channel = X25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))
        self._mask_seed = shamir.random_secret(entropy)
        self._self_secret = shamir.random_secret(entropy)

    def __repr__(self) -> str:
        return f"RoundKeys({self._name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("round keys live in memory only")

    def advert(self, offer: Offer) -> Advert:
        """The public parts, not signed."""
        return Advert(
            name=self._name,
            channel_key=keys.public_of(self._channel),
            mask_key=keys.public_of(keys.mask_private(self._mask_seed)),
            nonce=self._entropy(32),
            commitment=keys.commitment(digest(offer), self._name, self._self_secret),
            signature=b"",
        )

    def share(self, layout: Layout) -> tuple[Shares, ShareBundle]:
        """The own shares of the two secrets, and the neighbours' encrypted for them."""
        points = {holder: layout.points[holder] for holder in layout.holders(self._name)}
        selves, masks = (
            shamir.split(secret, layout.threshold, tuple(points.values()), self._entropy)
            for secret in (self._self_secret, self._mask_seed)
        )
        shares = {holder: (selves[x], masks[x]) for holder, x in points.items()}
        own = shares.pop(self._name)
        entries = tuple(self._seal(layout, holder, pair) for holder, pair in shares.items())
        return own, ShareBundle(sender=self._name, entries=entries)

    def unseal(self, layout: Layout, entry: ShareEntry) -> Shares:
        """A neighbour's shares for this participant.

        Raises:
            BadCiphertext: not encrypted for this round, sender and recipient, or no shares.
        """
        public, about = layout.adverts[entry.peer].channel_key, (entry.peer, self._name)
        key = keys.channel_key(self._channel, public, layout.context, *about)
        return keys.unseal(key, entry.nonce, keys.associated(layout.context, *about), entry.ciphertext)

    def masks(self, layout: Layout, sharers: bytes, peers: Iterable[str]) -> list[MaskKey]:
        """The self mask and the masks in common with `peers`.

        Args:
            layout: of the round.
            sharers: the sharers digest.
            peers: neighbours that shared.
        """
        private = keys.mask_private(self._mask_seed)
        masks = [MaskKey(keys.self_key(self._self_secret, sharers, self._name), 1)]
        for peer in peers:
            key = keys.pair_key(private, layout.adverts[peer].mask_key, sharers, self._name, peer)
            masks.append(MaskKey(key, keys.pair_sign(self._name, peer)))
        return masks

    def _seal(self, layout: Layout, recipient: str, shares: Shares) -> ShareEntry:
        public, about = layout.adverts[recipient].channel_key, (self._name, recipient)
        key = keys.channel_key(self._channel, public, layout.context, *about)
        nonce = self._entropy(NONCE_BYTES)
        sealed = keys.seal(key, nonce, keys.associated(layout.context, *about), *shares)
        return ShareEntry(peer=recipient, nonce=nonce, ciphertext=sealed)
