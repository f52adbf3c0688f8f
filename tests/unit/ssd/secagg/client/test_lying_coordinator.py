"""A coordinator that lies (`secagg.md` §3): each lie a subclass of the real aggregator.

Should happen: whoever can see the lie refuses, with its reason, before it reveals a share.
Should not happen: a share of anybody whom the lie is about to lay open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

from secure.secure_rounds import (
    CONFIG,
    MODEL,
    Drawn,
    Federation,
    Liar,
    Remembered,
    names_of,
    offer_for,
    outcomes,
    registry,
    signing_key,
)
from ssd.secagg.client.round_keys import RoundKeys
from ssd.secagg.protocol import keys
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Kind,
    Offer,
    Reveal,
    Roster,
    SetProof,
    ShareDelivery,
    Survivors,
    digest,
)
from ssd.secagg.protocol.policy import ParticipantPolicy, RunTerms
from ssd.secagg.protocol.signatures import sign_advert, sign_survivors

NAMES = names_of(10)
"""Of 10, two may drop out and one is assumed corrupt: 8 must survive, 6 shares rebuild, 6 signatures prove."""
HALF, OTHER_HALF = NAMES[:5], NAMES[5:]
POLICY = ParticipantPolicy(
    level=Level.ACTIVE,
    min_participants=4,
    max_participants=100,
    min_gamma_ppm=100_000,
    max_delta_ppm=200_000,
    ring_bits=frozenset({24, 32}),
    max_total_weight=1000,
)
R = AbortReason


def attacked(liar: type[Liar], **changes: Any) -> Federation:
    given = {"offer": offer_for(10), "names": NAMES, "policy": POLICY, "aggregator_class": liar}
    return Federation(**(given | changes))


def everybody_says(f: Federation, reason: AbortReason, **options: Any) -> None:
    assert outcomes(f, **options) == dict.fromkeys(f.names, reason)


def telling(kind: type, change: Callable[[Liar, str, Any], Any]) -> type[Liar]:
    """A liar that changes one kind of message."""

    class ToldOtherwise(Liar):
        def tell(self, name: str, message: Any) -> Any:
            return change(self, name, message) if isinstance(message, kind) else message

    return ToldOtherwise


def test_without_a_lie_everybody_reveals() -> None:
    f = attacked(Liar)
    for name, reveal in outcomes(f).items():
        assert isinstance(reveal, Reveal)
        f.aggregator.reveal(name, reveal)
    assert (f.open() == f.expected(NAMES)).all()


# ---------------------------------------------------------------------------------------------------- the offer

OFFERS = {
    "a weaker level": ({"level": Level.PASSIVE}, R.LEVEL_TOO_LOW),
    "too few participants": ({"participants": 3}, R.POLICY_PARTICIPANTS),
    "too many participants": ({"participants": 101}, R.POLICY_PARTICIPANTS),
    "nobody assumed corrupt: a threshold of a bare majority": ({"gamma_ppm": 0}, R.POLICY_CORRUPT),
    "everybody assumed corrupt": ({"gamma_ppm": 1_000_000}, R.POLICY_CORRUPT),
    "a floor one participant lower": ({"delta_ppm": 200_001}, R.POLICY_DROPOUT),
    "a narrow ring": ({"ring_bits": 16}, R.POLICY_RING_BITS),
    "no weight": ({"max_total_weight": 0}, R.POLICY_WEIGHT),
    "a weight that wraps around": ({"max_total_weight": 1001}, R.POLICY_WEIGHT),
    "another configuration": ({"config_digest": MODEL}, R.CONFIG_DIFFERS),
    "another model": ({"model_digest": CONFIG}, R.MODEL_DIFFERS),
}


@pytest.mark.parametrize(("changes", "reason"), OFFERS.values(), ids=OFFERS)
def test_an_offer_nobody_agreed_to(changes: dict[str, Any], reason: AbortReason) -> None:
    everybody_says(attacked(Liar, offer=offer_for(10, **changes)), reason)


TOLD = RunTerms(level=Level.ACTIVE, ring_bits=32, max_total_weight=1000, max_participants=10)
WITHIN_THE_POLICY: dict[str, dict[str, Any]] = {
    "a weaker level": {"level": Level.PASSIVE},
    "a narrower ring": {"ring_bits": 24},
    "less weight, and with it less headroom than the scale is made for": {"max_total_weight": 999},
    "one addend more than the headroom is made for": {"participants": 11},
}


@pytest.mark.parametrize("changes", WITHIN_THE_POLICY.values(), ids=WITHIN_THE_POLICY)
def test_an_offer_that_is_not_what_they_were_told_when_they_joined(changes: dict[str, Any]) -> None:
    """Everybody's policy would allow it: what counts is the welcome."""
    policy = replace(POLICY, level=Level.PASSIVE)
    assert all(
        isinstance(each, Reveal) for each in outcomes(attacked(Liar, policy=policy, told=TOLD)).values()
    )
    f = attacked(Liar, policy=policy, told=TOLD, offer=offer_for(10, **changes))
    everybody_says(f, R.TERMS_CHANGED)
    assert not any(memory.rounds for memory in f.memories.values()), "no keys were made"


def test_a_sparse_graph_nobody_agreed_to() -> None:
    policy = replace(POLICY, allow_ring=False)
    everybody_says(attacked(Liar, policy=policy, offer=offer_for(10, graph=Graph.RING)), R.POLICY_GRAPH)


def test_a_ring_too_narrow_for_one_step_of_each() -> None:
    policy = replace(POLICY, ring_bits=frozenset({4}))
    everybody_says(attacked(Liar, policy=policy, offer=offer_for(10, ring_bits=4)), R.NO_HEADROOM)


def test_a_threshold_more_than_all_holders() -> None:
    # 2t > 10 + 8 asks for 10 shares; 8 are certain.
    everybody_says(attacked(Liar_that_goes_on, offer=offer_for(10, gamma_ppm=800_000)), R.NO_THRESHOLD)


class Liar_that_goes_on(Liar):  # noqa: N801
    """Does not mind that there is no threshold."""

    def close_adverts(self) -> Roster:
        return Roster(adverts=tuple(self._adverts[name] for name in sorted(self._adverts)))


def test_a_model_of_its_own_for_one_of_them() -> None:
    """The victim was given another model, and an offer that goes with it: its keys fit nobody else's."""

    class Inconsistent(Federation):
        def model_of(self, name: str) -> bytes:
            return CONFIG if name == NAMES[0] else MODEL

    lie = telling(
        Offer, lambda _, name, offer: replace(offer, model_digest=CONFIG) if name == NAMES[0] else offer
    )
    f = Inconsistent(offer=offer_for(10), names=NAMES, policy=POLICY, aggregator_class=lie)
    everybody_says(f, R.BAD_SIGNATURE)


def test_in_level_passive_a_model_of_its_own_gives_shares_nobody_can_read() -> None:
    class Inconsistent(Federation):
        def model_of(self, name: str) -> bytes:
            return CONFIG if name == NAMES[0] else MODEL

    lie = telling(
        Offer, lambda _, name, offer: replace(offer, model_digest=CONFIG) if name == NAMES[0] else offer
    )
    f = Inconsistent(
        offer=offer_for(10, Level.PASSIVE),
        names=NAMES,
        policy=replace(POLICY, level=Level.PASSIVE),
        aggregator_class=lie,
    )
    everybody_says(f, R.BAD_SHARE)


def test_a_round_id_a_second_time() -> None:
    f = attacked(Liar)
    outcomes(f)
    again = attacked(Liar, memories=f.memories)
    everybody_says(again, R.ROUND_SEEN)


def test_another_attempt_without_the_victim_after_the_shares_were_revealed() -> None:
    """Two sums on one base that differ by one participant would give that one away."""
    f = attacked(Liar)
    outcomes(f)
    again = attacked(
        Liar, memories=f.memories, names=NAMES[1:], offer=offer_for(10, round_id=b"another-round-id"),
        registry=registry(NAMES),
    )  # fmt: skip
    everybody_says(again, R.BASE_OPENED)


def test_over_an_opened_base_not_even_keys_are_made() -> None:
    f = attacked(Liar)
    outcomes(f)
    offer = offer_for(10, round_id=b"another-round-id")
    for name in NAMES:
        participant = f.participant(name)
        with pytest.raises(Refused) as refused:
            participant.offer(offer, model_digest=MODEL, config_digest=CONFIG)
        assert refused.value.reason is R.BASE_OPENED
        assert not f.memories[name].seen(offer.round_id)


def test_two_attempts_on_one_base_side_by_side() -> None:
    """Both began before either was opened: the second reveals nothing."""
    first = attacked(Liar)
    second = attacked(Liar, memories=first.memories, offer=offer_for(10, round_id=b"another-round-id"))
    for f in (first, second):
        f.until_uploaded()
        f.survive(NAMES)
    first.reveal(NAMES)
    proof = second.aggregator.close_signatures()
    for name in NAMES:
        with pytest.raises(Refused) as refused:
            second[name].proof(proof)
        assert refused.value.reason is R.BASE_OPENED


# --------------------------------------------------------------------------------------------------- the roster


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


def without(roster: Roster, name: str) -> Roster:
    return Roster(adverts=tuple(advert for advert in roster.adverts if advert.name != name))


def test_a_roster_shrunk_below_the_minimum() -> None:
    f = attacked(
        telling(Roster, lambda _, name, roster: Roster(adverts=tuple(a for a in roster.adverts if a.name in group(name)[:4]))),
        policy=replace(POLICY, min_participants=5),
    )  # fmt: skip
    everybody_says(f, R.ROSTER_SIZE)


def group(name: str) -> tuple[str, ...]:
    return HALF if name in HALF else OTHER_HALF


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


# ------------------------------------------------------------------------------------------------- the delivery


def sharing(change: Callable[[ShareDelivery, str], ShareDelivery]) -> type[Liar]:
    return telling(ShareDelivery, lambda _, name, delivery: change(delivery, name))


def less(delivery: ShareDelivery, gone: Collection[str]) -> ShareDelivery:
    return replace(
        delivery,
        sharers=tuple(each for each in delivery.sharers if each not in gone),
        entries=tuple(entry for entry in delivery.entries if entry.peer not in gone),
    )


def neighbour(name: str) -> str:
    return NAMES[(NAMES.index(name) + 1) % 10]


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


# -------------------------------------------------------------------------------------------- the survivor set


def surviving(change: Callable[[Survivors, str], Survivors]) -> type[Liar]:
    return telling(Survivors, lambda _, name, survivors: change(survivors, name))


def gone(survivors: Survivors, *names: str) -> Survivors:
    return replace(survivors, names=tuple(each for each in survivors.names if each not in names))


SURVIVOR_SETS: dict[str, tuple[Callable[[Survivors, str], Survivors], AbortReason]] = {
    "without oneself": (gone, R.SURVIVORS_WITHOUT_SELF),
    "of other sharers": (lambda s, name: replace(s, sharers_digest=MODEL), R.SHARERS_DIFFER),
    "with a stranger": (
        lambda s, name: replace(s, names=(*s.names, "x-sybil")),
        R.SURVIVORS_UNKNOWN,
    ),
    "one below the floor": (
        lambda s, name: gone(s, *[each for each in NAMES if each != name][:3]),
        R.TOO_FEW_SURVIVORS,
    ),
    "oneself twice": (lambda s, name: replace(s, names=(s.names[0], *s.names)), R.MALFORMED_MESSAGE),
}


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize(("change", "reason"), SURVIVOR_SETS.values(), ids=SURVIVOR_SETS)
def test_a_wrong_survivor_set(
    change: Callable[[Survivors, str], Survivors], reason: AbortReason, level: Level
) -> None:
    policy = replace(POLICY, level=level)
    lie = surviving(
        lambda s, name: change(s, name) if reason is not R.SURVIVORS_WITHOUT_SELF else gone(s, name)
    )
    everybody_says(attacked(lie, policy=policy, offer=offer_for(10, level)), reason)


def test_a_survivor_set_as_small_as_the_participants_own_minimum_allows() -> None:
    lie = surviving(lambda s, name: gone(s, *[each for each in NAMES if each != name][:1]))
    everybody_says(attacked(lie, policy=replace(POLICY, min_participants=10)), R.TOO_FEW_SURVIVORS)


def test_a_survivor_set_with_fewer_honest_ones_than_the_noise_was_made_for() -> None:
    """Nine survive, one of them is assumed corrupt: eight parts of the noise, and nine were to be enough."""
    lie = surviving(lambda s, name: gone(s, *[each for each in NAMES if each != name][:1]))
    everybody_says(attacked(lie, policy=replace(POLICY, min_honest=9)), R.TOO_FEW_SURVIVORS)
    f = attacked(lie, policy=replace(POLICY, min_honest=8))
    assert R.TOO_FEW_SURVIVORS not in outcomes(f).values()


def test_a_dropped_sharer_named_as_survivor() -> None:
    """It never uploaded, but it did share: nothing of it is laid open, and the sum comes out wrong, not private."""
    lie = surviving(lambda s, name: replace(s, names=NAMES))
    f = attacked(lie)
    said = outcomes(f, gone_before_upload=NAMES[:1])
    assert all(isinstance(said[name], Reveal) for name in NAMES[1:])


def test_a_live_uploader_left_out() -> None:
    """It refuses. The others cannot know; no share of its self mask is revealed, so its vector stays masked."""
    victim = NAMES[4]
    f = attacked(surviving(lambda s, name: gone(s, victim)))
    said = outcomes(f)
    assert said.pop(victim) is R.SURVIVORS_WITHOUT_SELF
    for reveal in said.values():
        assert isinstance(reveal, Reveal)
        assert [each.kind for each in reveal.entries if each.about == victim] == [Kind.MASK]


def two_stories(survivors: Survivors, name: str) -> Survivors:
    return gone(survivors, *(NAMES[8:] if name in HALF else NAMES[:2]))


def test_two_survivor_sets_for_two_halves() -> None:
    """Neither set has six signatures: with those of the other set, and without them."""

    class OwnHalf(Liar):
        def tell(self, name: str, message: Any) -> Any:
            if isinstance(message, Survivors):
                return two_stories(message, name)
            if isinstance(message, SetProof):
                return SetProof(signatures=tuple(s for s in message.signatures if s.name in group(name)))
            return message

    everybody_says(attacked(OwnHalf), R.TOO_FEW_SIGNATURES)
    said = outcomes(attacked(surviving(two_stories)))
    assert set(said.values()) == {R.BAD_SIGNATURE, R.FOREIGN_SIGNATURE}


def test_a_survivor_set_before_the_upload() -> None:
    f = attacked(Liar)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    survivors = Survivors(sharers_digest=f.aggregator.sharers_digest, names=NAMES)
    for name in NAMES:
        with pytest.raises(Refused) as refused:
            f[name].survivors(survivors)
        assert refused.value.reason is R.UNEXPECTED_MESSAGE


# --------------------------------------------------------------------------------------------------- the proof


def proving(change: Callable[[Liar, SetProof], SetProof]) -> type[Liar]:
    return telling(SetProof, lambda liar, _, proof: change(liar, proof))


def test_one_signature_too_few() -> None:
    everybody_says(
        attacked(proving(lambda _, proof: SetProof(signatures=proof.signatures[:5]))), R.TOO_FEW_SIGNATURES
    )


def test_just_enough_signatures_are_enough() -> None:
    f = attacked(proving(lambda _, proof: SetProof(signatures=proof.signatures[:6])))
    assert all(isinstance(each, Reveal) for each in outcomes(f).values())


def test_a_signature_of_somebody_that_is_no_survivor() -> None:
    def foreign(liar: Liar, proof: SetProof) -> SetProof:
        assert liar.survivors is not None
        dropped = sign_survivors(signing_key(NAMES[0]), NAMES[0], liar.survivors)
        return SetProof(signatures=(dropped, *proof.signatures))

    f = attacked(proving(foreign))
    said = outcomes(f, gone_before_upload=NAMES[:1])
    assert {name: said[name] for name in NAMES[1:]} == dict.fromkeys(NAMES[1:], R.FOREIGN_SIGNATURE)


def test_signatures_of_the_round_before() -> None:
    earlier = attacked(Liar, offer=offer_for(10, round_id=b"the-round-before", model_digest=CONFIG))
    earlier.model_of = lambda name: CONFIG  # type: ignore[method-assign]
    outcomes(earlier)
    old = earlier.aggregator.proof
    assert old is not None
    everybody_says(attacked(proving(lambda _, proof: old)), R.BAD_SIGNATURE)


def test_the_same_signature_under_every_name() -> None:
    def copied(_: Liar, proof: SetProof) -> SetProof:
        one = proof.signatures[0].signature
        return SetProof(signatures=tuple(replace(each, signature=one) for each in proof.signatures))

    everybody_says(attacked(proving(copied)), R.BAD_SIGNATURE)


def test_a_proof_before_the_survivor_set() -> None:
    f = attacked(Liar)
    f.until_uploaded()
    for name in NAMES:
        with pytest.raises(Refused) as refused:
            f[name].proof(SetProof(signatures=()))
        assert refused.value.reason is R.UNEXPECTED_MESSAGE


# --------------------------------------------------------------------------------------- after the shares are out


@pytest.mark.parametrize("level", list(Level))
def test_a_second_survivor_set_after_the_reveal(level: Level) -> None:
    class Again(Liar):
        def more(self, name: str) -> list[Any]:
            assert self.survivors is not None
            return [self.survivors, gone(self.survivors, neighbour(name))]

    f = attacked(Again, policy=replace(POLICY, level=level), offer=offer_for(10, level))
    everybody_says(f, R.UNEXPECTED_MESSAGE)


@pytest.mark.parametrize("level", list(Level))
def test_the_same_request_again_gets_the_same_bytes(level: Level) -> None:
    f = attacked(Liar, policy=replace(POLICY, level=level), offer=offer_for(10, level))
    f.until_uploaded()
    survivors = f.aggregator.close_uploads()
    first = [f[name].survivors(survivors) for name in NAMES]
    assert [f[name].survivors(survivors) for name in NAMES] == first
    if level is Level.ACTIVE:
        for name, signature in zip(NAMES, first, strict=True):
            f.aggregator.signature(name, signature)
        proof = f.aggregator.close_signatures()
        first = [f[name].proof(proof) for name in NAMES]
        assert [f[name].proof(proof) for name in NAMES] == first


def test_a_revealing_participant_gives_one_share_of_each_neighbour() -> None:
    f = attacked(surviving(lambda s, name: gone(s, NAMES[9])))
    for reveal in outcomes(f).values():
        if isinstance(reveal, Reveal):
            assert [each.about for each in reveal.entries] == list(NAMES)
            assert [each.kind for each in reveal.entries] == [Kind.SELF] * 9 + [Kind.MASK]


# --------------------------------------------------------------------------------------------- the sparse graph

MANY = names_of(66)


def ring(liar: type[Liar], **fractions: int) -> Federation:
    offer = offer_for(
        66, Level.PASSIVE, graph=Graph.RING, **({"gamma_ppm": 50_000, "delta_ppm": 50_000} | fractions)
    )
    policy = replace(POLICY, level=Level.PASSIVE, min_gamma_ppm=50_000, max_delta_ppm=300_000)
    return Federation(offer=offer, names=MANY, policy=policy, aggregator_class=liar)


def test_shares_of_somebody_that_is_no_neighbour_on_the_ring() -> None:
    def stranger(liar: Liar, name: str, delivery: ShareDelivery) -> ShareDelivery:
        strangers = set(MANY) - set(liar._layout.holders(name))
        entry = replace(delivery.entries[0], peer=min(strangers))
        entries = sorted((entry, *delivery.entries[1:]), key=lambda each: each.peer)
        return replace(delivery, entries=tuple(entries))

    everybody_says(ring(telling(ShareDelivery, stranger)), R.SHARES_MISSING)


def test_two_gaps_in_the_ring_declared_dropped() -> None:
    """To cut out an arc, two runs of k/2 neighbours have to be missing: more than the floor allows."""

    class Gaps(Liar):
        def tell(self, name: str, message: Any) -> Any:
            if not isinstance(message, Survivors):
                return message
            order, half = self._layout._order, self._layout.neighbour_count // 2
            cut = {MANY[order[place]] for start in (0, 33) for place in range(start, start + half)}
            return gone(message, *(cut - {name}))

    everybody_says(ring(Gaps), R.TOO_FEW_SURVIVORS)


def test_too_few_neighbours_on_the_ring_shared() -> None:
    """The floor is met over all, but a participant's own neighbourhood could not answer for it."""
    f = ring(Liar, gamma_ppm=100_000, delta_ppm=300_000)
    f.advertise(MANY)
    f.share(MANY)
    deliveries = f.aggregator.close_shares()
    layout, victim = f.aggregator._layout, MANY[0]
    near = layout.neighbours(victim)[: layout.neighbour_count + 2 - layout.threshold]
    assert len(MANY) - len(near) >= layout.fewest
    with pytest.raises(Refused) as refused:
        f[victim].delivery(less(deliveries[victim], near))
    assert refused.value.reason is R.TOO_FEW_SHARERS


# ------------------------------------------------------------------------------------------------- who one is


def test_level_active_needs_a_key_that_the_registry_knows() -> None:
    f = attacked(Liar)
    for changes in (
        {"signer": None},
        {"registry": None},
        {"signer": signing_key("somebody")},
        {"registry": registry(NAMES[1:])},
    ):
        participant = f.participant(NAMES[0], memory=Remembered(), **changes)
        with pytest.raises(Refused) as refused:
            participant.offer(f.offer, model_digest=MODEL, config_digest=CONFIG)
        assert refused.value.reason is R.NO_IDENTITY


def test_an_advert_is_what_its_participant_drew() -> None:
    f = attacked(Liar)
    advert = f.advertise(NAMES)[NAMES[0]]
    assert isinstance(advert, Advert)
    assert f.memories[NAMES[0]].seen(f.offer.round_id)
