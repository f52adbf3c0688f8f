"""A coordinator that lies about who takes part: rosters and deliveries that are changed, swapped, old or two at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from secure.lying import (
    HALF,
    MANY,
    NAMES,
    POLICY,
    R,
    attacked,
    everybody_says,
    group,
    less,
    neighbour,
    ring,
    telling,
    without,
)
from secure.secure_rounds import (
    Drawn,
    Federation,
    Liar,
    names_of,
    offer_for,
    outcomes,
    registry,
    signing_key,
)
from ssd.secagg.client.round_keys import RoundKeys
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.errors import Aborted, AbortReason, Refused
from ssd.secagg.protocol.messages import (
    Reveal,
    Roster,
    ShareDelivery,
    Survivors,
    digest,
)
from ssd.secagg.protocol.policy import ParticipantPolicy
from ssd.secagg.protocol.signatures import sign_advert


def changed_advert(**changes: Callable[[Liar], bytes]) -> Callable[[Liar, str, Roster], Roster]:
    """The first participant's advert is told with other values."""

    def change(liar: Liar, name: str, roster: Roster) -> Roster:
        first = replace(roster.adverts[0], **{field: value(liar) for field, value in changes.items()})
        return Roster(adverts=(first, *roster.adverts[1:]))

    return change


def others_say(f: Federation, victim: str, own: AbortReason, others: AbortReason) -> None:
    expected = {name: own if name == victim else others for name in f.names}
    assert outcomes(f) == expected


@pytest.mark.parametrize("field", ["channel_key", "mask_key", "nonce", "commitment"])
def test_a_key_of_the_coordinators_own_in_the_place_of_a_participants(field: str) -> None:
    evil = RoundKeys("evil", Drawn("evil")).advert(offer_for(10))
    f = attacked(telling(Roster, changed_advert(**{field: lambda _: getattr(evil, field)})))
    others_say(f, NAMES[0], R.OWN_ADVERT, R.BAD_SIGNATURE)


@pytest.mark.parametrize("field", ["channel_key", "mask_key", "nonce", "commitment"])
def test_the_same_value_for_two_participants(field: str) -> None:
    lie = changed_advert(**{field: lambda liar: getattr(liar._adverts[NAMES[1]], field)})
    others_say(attacked(telling(Roster, lie)), NAMES[0], R.OWN_ADVERT, R.DUPLICATE_KEY)


def test_two_participants_keys_swapped() -> None:
    def swap(_: Liar, name: str, roster: Roster) -> Roster:
        one, other, *rest = roster.adverts
        swapped = (replace(one, mask_key=other.mask_key), replace(other, mask_key=one.mask_key), *rest)
        return Roster(adverts=swapped)

    f = attacked(telling(Roster, swap))
    expected = {name: R.OWN_ADVERT if name in NAMES[:2] else R.BAD_SIGNATURE for name in NAMES}
    assert outcomes(f) == expected


def test_an_advert_of_an_earlier_round() -> None:
    earlier = attacked(Liar, offer=offer_for(10, round_id=b"the-round-before"))
    old = earlier.advertise(NAMES)[NAMES[0]]
    f = attacked(telling(Roster, lambda _, name, roster: Roster(adverts=(old, *roster.adverts[1:]))))
    others_say(f, NAMES[0], R.OWN_ADVERT, R.BAD_SIGNATURE)


def test_a_roster_without_oneself() -> None:
    f = attacked(telling(Roster, lambda _, name, roster: without(roster, name)))
    everybody_says(f, R.OWN_ADVERT)


def test_a_roster_shrunk_below_the_minimum() -> None:
    f = attacked(
        telling(Roster, lambda _, name, roster: Roster(adverts=tuple(a for a in roster.adverts if a.name in group(name)[:4]))),
        policy=replace(POLICY, min_participants=5),
    )  # fmt: skip
    everybody_says(f, R.ROSTER_SIZE)


def test_more_participants_than_were_offered() -> None:
    f = attacked(Liar, offer=offer_for(9))
    everybody_says(f, R.ROSTER_SIZE)


def test_a_roster_that_changes() -> None:
    f = attacked(Liar)
    f.advertise(NAMES)
    roster = f.aggregator.close_adverts()
    for name in NAMES:
        bundle = f[name].roster(roster)
        assert f[name].roster(roster) == bundle
        with pytest.raises(Refused) as refused:
            f[name].roster(without(roster, neighbour(name)))
        assert refused.value.reason is R.UNEXPECTED_MESSAGE
        assert f[name]._own is None


def test_sharers_that_change() -> None:
    f = attacked(Liar)
    f.advertise(NAMES)
    f.share(NAMES)
    deliveries = f.aggregator.close_shares()
    for name in NAMES:
        f[name].delivery(deliveries[name])
        f[name].delivery(deliveries[name])
        with pytest.raises(Refused) as refused:
            f[name].delivery(less(deliveries[name], [neighbour(name)]))
        assert refused.value.reason is R.UNEXPECTED_MESSAGE


def test_two_rosters() -> None:
    """Each participant is shown one other one less: nobody can read what the others encrypted for their roster."""
    after = {name: NAMES[(index + 1) % 10] for index, name in enumerate(NAMES)}
    before = {later: name for name, later in after.items()}

    class TwoRosters(Liar):
        def tell(self, name: str, message: Any) -> Any:
            if isinstance(message, Roster):
                return without(message, after[name])
            if isinstance(message, ShareDelivery):
                return less(message, [after[name], before[name]])
            return message

    everybody_says(attacked(TwoRosters, policy=replace(POLICY, min_participants=2)), R.BAD_SHARE)


def test_a_participant_the_registry_does_not_know() -> None:
    """The coordinator enrols its own: everybody sees that the pinned registry lacks it."""

    def enrol(liar: Liar, name: str, roster: Roster) -> Roster:
        sybil = RoundKeys("x-sybil", Drawn("sybil")).advert(liar.offer)
        return Roster(
            adverts=(*roster.adverts, sign_advert(signing_key("x-sybil"), digest(liar.offer), sybil))
        )

    everybody_says(attacked(telling(Roster, enrol), offer=offer_for(11)), R.NOT_REGISTERED)


SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
SECOND_SPELLINGS = [
    (2**255 - 19 + 9).to_bytes(32, "little"),
    (9 + 2**255).to_bytes(32, "little"),
]


@pytest.mark.parametrize("field", ["channel_key", "mask_key"])
@pytest.mark.parametrize("point", [*SMALL_ORDER, *SECOND_SPELLINGS], ids=lambda point: point.hex()[:8])
def test_a_corrupt_participant_with_a_key_whose_secrets_everybody_knows(field: str, point: bytes) -> None:
    assert not keys.is_public(point)
    roster = rosters()
    bad = sign_advert(
        signing_key("w003"), digest(offer_for(10)), replace(roster.adverts[3], **{field: point})
    )
    participant = advertised()
    with pytest.raises(Refused) as refused:
        participant.roster(Roster(adverts=(*roster.adverts[:3], bad, *roster.adverts[4:])))
    assert refused.value.reason is R.BAD_KEY


def advertised() -> Any:
    f = attacked(Liar)
    f.advertise(NAMES)
    return f[NAMES[0]]


def rosters() -> Roster:
    f = attacked(Liar)
    f.advertise(NAMES)
    return f.aggregator.close_adverts()


def sharing(change: Callable[[ShareDelivery, str], ShareDelivery]) -> type[Liar]:
    return telling(ShareDelivery, lambda _, name, delivery: change(delivery, name))


def swapped(delivery: ShareDelivery) -> ShareDelivery:
    one, other, *rest = delivery.entries
    return replace(delivery, entries=(replace(other, peer=one.peer), replace(one, peer=other.peer), *rest))


def with_stranger(delivery: ShareDelivery) -> ShareDelivery:
    return replace(delivery, sharers=(*delivery.sharers, "x-sybil"))


DELIVERIES: dict[str, tuple[Callable[[ShareDelivery, str], ShareDelivery], AbortReason]] = {
    "another's": (lambda d, name: replace(d, recipient=neighbour(name)), R.WRONG_RECIPIENT),
    "a sharer from outside the roster": (lambda d, name: with_stranger(d), R.SHARERS_UNKNOWN),
    "without oneself": (lambda d, name: less(d, [name]), R.SHARERS_WITHOUT_SELF),
    "one below the floor": (
        lambda d, name: less(d, [each for each in NAMES if each != name][:3]),
        R.TOO_FEW_SHARERS,
    ),
    "a share kept back": (lambda d, name: replace(d, entries=d.entries[1:]), R.SHARES_MISSING),
    "a share of somebody that did not share": (
        lambda d, name: replace(d, sharers=tuple(each for each in d.sharers if each != neighbour(name))),
        R.SHARES_MISSING,
    ),
    "two ciphertexts swapped": (lambda d, name: swapped(d), R.BAD_SHARE),
    "a ciphertext twice": (
        lambda d, name: replace(d, entries=(d.entries[0], *d.entries)),
        R.MALFORMED_MESSAGE,
    ),
}


@pytest.mark.parametrize(("change", "reason"), DELIVERIES.values(), ids=DELIVERIES)
def test_a_wrong_delivery(change: Callable[[ShareDelivery, str], ShareDelivery], reason: AbortReason) -> None:
    everybody_says(attacked(sharing(change)), reason)


def test_ciphertexts_of_an_earlier_round() -> None:
    earlier = attacked(Liar, offer=offer_for(10, round_id=b"the-round-before"))
    earlier.advertise(NAMES)
    earlier.share(NAMES)
    old = earlier.aggregator.close_shares()
    everybody_says(attacked(sharing(lambda delivery, name: old[name])), R.BAD_SHARE)


def test_two_sets_of_sharers() -> None:
    """One half is told that two dropped out, the other half that two others did; each its own survivor set."""

    class TwoStories(Liar):
        def tell(self, name: str, message: Any) -> Any:
            gone = NAMES[8:] if name in HALF else NAMES[:2]
            if isinstance(message, ShareDelivery):
                return less(message, gone)
            if isinstance(message, Survivors):
                sharers = tuple(each for each in NAMES if each not in gone)
                return Survivors(
                    sharers_digest=keys.sharers_digest(self._layout.context, sharers), names=sharers
                )
            return message

    f = attacked(TwoStories)
    assert set(outcomes(f).values()) == {R.BAD_SIGNATURE, R.FOREIGN_SIGNATURE}


def test_shares_of_somebody_that_is_no_neighbour_on_the_ring() -> None:
    def stranger(liar: Liar, name: str, delivery: ShareDelivery) -> ShareDelivery:
        strangers = set(MANY) - set(liar._layout.holders(name))
        entry = replace(delivery.entries[0], peer=min(strangers))
        entries = sorted((entry, *delivery.entries[1:]), key=lambda each: each.peer)
        return replace(delivery, entries=tuple(entries))

    everybody_says(ring(telling(ShareDelivery, stranger)), R.SHARES_MISSING)


# ----------------------------------------------------------------------------------- a roster chosen from the registry

FORTY = names_of(40)


def chosen_from_forty(count: int, policy: ParticipantPolicy, **changes: Any) -> Federation:
    """A roster of so many out of a registry of forty, of whom the coordinator may have four on its side."""
    return attacked(
        Liar, offer=offer_for(count, **changes), names=FORTY[:count], registry=registry(FORTY), policy=policy
    )


def test_four_corrupt_of_forty_around_one_victim() -> None:
    """A tenth is assumed corrupt. Of a roster of five that was none, rounded up one; of the registry it is four, and the
    coordinator put all of them in, with a victim whose own minimum is five."""
    policy = replace(POLICY, min_participants=5, min_honest_others=1)
    everybody_says(chosen_from_forty(5, policy), R.POLICY_CORRUPT)
    everybody_says(chosen_from_forty(10, policy), R.POLICY_CORRUPT)
    # With thresholds for four, five are too few for any; of seven, one other honest one is certain.
    with pytest.raises(Aborted, match="no_threshold"):
        outcomes(chosen_from_forty(5, policy, gamma_ppm=800_000))
    f = chosen_from_forty(7, policy, gamma_ppm=600_000)
    assert all(isinstance(said, Reveal) for said in outcomes(f).values())


def test_too_few_honest_others_in_the_smallest_sum() -> None:
    """Of seven, one may drop out and four are corrupt: one other is left."""
    policy = replace(POLICY, min_participants=5, min_honest_others=2)
    everybody_says(chosen_from_forty(7, policy, gamma_ppm=600_000), R.TOO_FEW_HONEST)
    f = chosen_from_forty(8, policy, gamma_ppm=500_000)
    assert all(isinstance(said, Reveal) for said in outcomes(f).values())


def test_who_fears_nobody_is_not_asked_about_the_registry() -> None:
    policy = replace(POLICY, min_gamma_ppm=0)
    f = chosen_from_forty(5, policy)
    assert all(isinstance(said, Reveal) for said in outcomes(f).values())
