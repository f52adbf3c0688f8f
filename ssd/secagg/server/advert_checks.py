"""What the coordinator asks of a participant's advert before it takes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ssd.secagg.protocol import keys
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import Advert, Offer, digest
from ssd.secagg.protocol.signatures import advert_is_signed
from ssd.secagg.server.members import Members


def check_advert(
    members: Members, offer: Offer, advert: Advert, others: Collection[Advert], registered: Mapping[str, str]
) -> None:
    """Refuse an advert that does not fit the offer, the registry or the adverts taken before.

    Args:
        members: the attempt's participants; a sender that broke the protocol is expelled there.
        offer: the attempt and its rules.
        advert: the keys of its sender, whose name was checked.
        others: the adverts that were taken.
        registered: the registered signing key of every participant; looked at in level `active` only.

    Raises:
        Rejected: the advert must not be taken.
    """
    sender = advert.name
    members.reject_unless(len(others) < offer.participants, AbortReason.ROSTER_SIZE, "the roster is full")
    members.reject_unless(
        keys.is_public(advert.channel_key) and keys.is_public(advert.mask_key),
        AbortReason.BAD_KEY,
        "no point of large order",
        sender,
    )
    if offer.level is Level.ACTIVE:
        key = registered.get(sender, "")
        members.reject_unless(key != "", AbortReason.NOT_REGISTERED, "not in the registry", sender)
        members.reject_unless(
            advert_is_signed(key, digest(offer), advert),
            AbortReason.BAD_SIGNATURE,
            "not signed by it for this offer",
            sender,
        )
    taken = {value for each in others for value in _unique(each)}
    own = _unique(advert)
    members.reject_unless(
        len(set(own)) == len(own) and taken.isdisjoint(own),
        AbortReason.DUPLICATE_KEY,
        "another advert has the same key, nonce or commitment",
        sender,
    )


def _unique(advert: Advert) -> tuple[bytes, ...]:
    """What no two participants of an attempt have in common."""
    return (advert.channel_key, advert.mask_key, advert.nonce, advert.commitment)
