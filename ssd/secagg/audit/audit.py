"""What anybody can verify of an opened round afterwards, from its public transcript and the pinned registry.

It shows that one survivor set was signed by so many that no other one can have been, by whom, under which rules, and
that the sum is said to be over exactly them. It cannot show what was in the sum, nor that minimums which participants
keep to themselves were met: those are theirs to enforce.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ssd.secagg.audit import transcript
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.errors import MalformedMessage
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import Message, Offer, Opened, Roster, SetProof, Sharers, Survivors, digest
from ssd.secagg.protocol.signatures import advert_is_signed, keys_of, survivors_are_signed
from ssd.trust.participants import Registry

Found = TypeVar("Found", bound=Message)


class AuditFailed(Exception):
    """The transcript does not show a proper round; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audited:
    """An opened round whose transcript holds."""

    offer: Offer
    participants: tuple[str, ...]
    sharers: tuple[str, ...]
    survivors: tuple[str, ...]
    threshold: int
    neighbours: int
    signatures: int
    """Of the survivor set; 0 in level `passive`."""
    opened: Opened
    before: bytes
    """Head of the transcript this one continues, 32 bytes; zeros: none."""
    head: bytes
    """What the next transcript has to continue, 32 bytes."""


def audit(
    content: bytes,
    registry: Registry | None,
    *,
    before: bytes | None = None,
    opened_digest: bytes | None = None,
) -> Audited:
    """Verify a transcript.

    Args:
        content: of the file.
        registry: participants and their keys, from the pinned signer; needed in level `active`.
        before: head of the transcript it has to continue, if known.
        opened_digest: SHA-256 of the opened sum, if it is at hand.

    Raises:
        AuditFailed: something does not hold.
    """
    try:
        read = transcript.read(content)
    except MalformedMessage as error:
        raise AuditFailed(error.detail) from None
    hold(before in (None, read.before), "it does not continue the transcript before it")
    messages = list(read.messages)
    offer, roster = _next(messages, Offer), _next(messages, Roster)
    sharers, survivors = _next(messages, Sharers), _next(messages, Survivors)
    proof = _next(messages, SetProof) if offer.level is Level.ACTIVE else SetProof(signatures=())
    opened = _next(messages, Opened)
    hold(not messages, "messages follow the end of the round")
    layout = _layout(offer, roster)
    _check_roster(offer, roster)
    if offer.level is Level.ACTIVE:
        hold(registry is not None, "level active can only be audited with the registry of participants")
        _check_signatures(layout, keys_of(registry), survivors, proof)
    _check_sets(layout, sharers.names, survivors)
    hold(
        opened.survivors == len(survivors.names), "the sum is said to be over another number of participants"
    )
    hold(opened_digest in (None, opened.opened_digest), "another vector was opened than this")
    return Audited(
        offer=offer,
        participants=tuple(layout.adverts),
        sharers=sharers.names,
        survivors=survivors.names,
        threshold=layout.threshold,
        neighbours=layout.neighbour_count,
        signatures=len(proof.signatures),
        opened=opened,
        before=read.before,
        head=read.head,
    )


def check_follows(earlier: Sequence[Audited], each: Audited) -> None:
    """Whether a round can have been opened after these, of the same run, oldest first.

    Two sums over one model whose sets differ by one participant give that one away; so no model may be the base of two.

    Raises:
        AuditFailed: it cannot.
    """
    offer = each.offer
    for before in earlier:
        hold(
            before.offer.round_id != offer.round_id,
            f"its round id is that of round {before.offer.round} again",
        )
        hold(
            before.offer.model_digest != offer.model_digest,
            f"a sum over its model was opened in round {before.offer.round} already: two of them give participants away",
        )
    if not earlier:
        return
    last = earlier[-1]
    hold(
        last.offer.round < offer.round,
        f"round {offer.round} stands after round {last.offer.round}: give the transcripts in the order of their rounds",
    )
    hold(
        last.offer.round + 1 < offer.round or last.opened.next_model_digest == offer.model_digest,
        f"it does not begin at the model that round {last.offer.round} made",
    )


def _check_roster(offer: Offer, roster: Roster) -> None:
    adverts = roster.adverts
    hold(len(adverts) <= offer.participants, "there are more participants than were offered")
    once = [
        value for each in adverts for value in (each.channel_key, each.mask_key, each.nonce, each.commitment)
    ]
    hold(len(set(once)) == len(once), "two adverts share a key, nonce or commitment")
    hold(
        all(keys.is_public(each.channel_key) and keys.is_public(each.mask_key) for each in adverts),
        "a key is no point of large order",
    )


def _check_signatures(
    layout: Layout, registered: Mapping[str, str], survivors: Survivors, proof: SetProof
) -> None:
    offer_digest = digest(layout.offer)
    for name, advert in layout.adverts.items():
        hold(name in registered, f"{name} is not in the registry")
        hold(
            advert_is_signed(registered[name], offer_digest, advert),
            f"the advert of {name} is not signed by it",
        )
    for each in proof.signatures:
        hold(each.name in survivors.names, f"{each.name} signed, but is no survivor")
        hold(
            survivors_are_signed(registered[each.name], survivors, each),
            f"{each.name} did not sign this survivor set",
        )
    hold(
        len(proof.signatures) >= layout.quorum,
        f"{len(proof.signatures)} signed the survivor set, {layout.quorum} are needed",
    )


def _check_sets(layout: Layout, sharers: tuple[str, ...], survivors: Survivors) -> None:
    hold(layout.adverts.keys() >= set(sharers), "a sharer is not in the roster")
    _check_enough(layout, sharers, "shared their keys")
    hold(
        survivors.sharers_digest == keys.sharers_digest(layout.context, sharers),
        "the survivor set belongs to another offer, roster or set of sharers",
    )
    hold(set(survivors.names) <= set(sharers), "a survivor did not share its keys")
    _check_enough(layout, survivors.names, "survived")


def _check_enough(layout: Layout, names: Collection[str], what: str) -> None:
    hold(len(names) >= layout.fewest, f"{len(names)} {what}, at least {layout.fewest} are needed")
    hold(not layout.short_of_holders(names), f"too few neighbours of a participant {what}")


def _layout(offer: Offer, roster: Roster) -> Layout:
    try:
        return Layout.of(offer, roster)
    except ValueError as error:
        raise AuditFailed(str(error)) from None


def _next(messages: list[Message], kind: type[Found]) -> Found:
    hold(bool(messages), f"the transcript ends before {kind.__name__}: the round was not opened")
    message = messages.pop(0)
    if not isinstance(message, kind):
        raise AuditFailed(f"{type(message).__name__} stands where {kind.__name__} is due")
    return message


def hold(holds: bool, otherwise: str) -> None:
    """One check.

    Raises:
        AuditFailed: it does not hold.
    """
    if not holds:
        raise AuditFailed(otherwise)
