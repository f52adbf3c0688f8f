"""A coordinator that lies about the attempt (`secagg.md` §3): the offer, the model, the round id, the registry.

Should happen: whoever can see the lie refuses, with its reason, before it reveals a share.
Should not happen: a share of anybody whom the lie is about to lay open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from secure.lying import NAMES, POLICY, R, attacked, everybody_says, telling
from secure.secure_rounds import (
    CONFIG,
    MODEL,
    Federation,
    Liar,
    Remembered,
    offer_for,
    outcomes,
    registry,
    signing_key,
)
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Offer,
    Reveal,
    Roster,
)
from ssd.secagg.protocol.policy import RunTerms


def test_without_a_lie_everybody_reveals() -> None:
    f = attacked(Liar)
    for name, reveal in outcomes(f).items():
        assert isinstance(reveal, Reveal)
        f.aggregator.reveal(name, reveal)
    assert (f.open() == f.expected(NAMES)).all()


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


RUN_TERMS = RunTerms(level=Level.ACTIVE, ring_bits=32, max_total_weight=1000, max_participants=10)
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
        isinstance(each, Reveal)
        for each in outcomes(attacked(Liar, policy=policy, run_terms=RUN_TERMS)).values()
    )
    f = attacked(Liar, policy=policy, run_terms=RUN_TERMS, offer=offer_for(10, **changes))
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
