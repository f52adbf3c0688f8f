"""A coordinator that lies about who survived: survivor sets, their signatures, and requests after the shares are out."""

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
    gone,
    group,
    less,
    neighbour,
    ring,
    telling,
)
from secure.secure_rounds import (
    CONFIG,
    MODEL,
    Liar,
    offer_for,
    outcomes,
    signing_key,
)
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Kind,
    Reveal,
    SetProof,
    Survivors,
)
from ssd.secagg.protocol.signatures import sign_survivors


def surviving(change: Callable[[Survivors, str], Survivors]) -> type[Liar]:
    return telling(Survivors, lambda _, name, survivors: change(survivors, name))


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


def proving(change: Callable[[Liar, SetProof], SetProof]) -> type[Liar]:
    return telling(SetProof, lambda liar, _, proof: change(liar, proof))


def test_one_signature_too_few() -> None:
    everybody_says(
        attacked(proving(lambda _, proof: SetProof(signatures=proof.signatures[:5]))), R.TOO_FEW_SIGNATURES
    )


def test_just_enough_signatures_are_enough() -> None:
    f = attacked(proving(lambda _, proof: SetProof(signatures=proof.signatures[:8])))
    assert all(isinstance(each, Reveal) for each in outcomes(f).values())


def test_one_fewer_is_a_majority_and_not_all_but_the_dropouts() -> None:
    lie = proving(lambda _, proof: SetProof(signatures=proof.signatures[:7]))
    everybody_says(attacked(lie), R.TOO_FEW_SIGNATURES)


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
