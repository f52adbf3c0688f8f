"""A coordinator that wants two sums over one model: of those who revealed, and of those it did not ask."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from secure.lying import POLICY
from secure.secure_rounds import CONFIG, MODEL, Federation, Liar, Remembered, names_of, offer_for, registry
from ssd.secagg.client.receipts import Receipt
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import Reveal, SetProof

NAMES = names_of(8)
EIGHT = replace(POLICY, min_participants=3)


def attempt(
    names: Sequence[str], memories: dict[str, Remembered], number: int, *, level: Level = Level.ACTIVE
) -> Federation:
    offer = offer_for(8, level, round_id=number.to_bytes(16, "big"), attempt=number)
    return Federation(
        offer=offer,
        names=tuple(names),
        policy=replace(EIGHT, level=level),
        aggregator_class=Liar,
        memories=memories,
        registry=registry(NAMES) if level is Level.ACTIVE else None,
    )


def proved_to(f: Federation, asked: Collection[str]) -> list[Reveal]:
    """Everybody signs; the proof, with all signatures, is shown to some only."""
    f.until_uploaded()
    survivors = f.aggregator.close_uploads()
    for name in f.names:
        f.aggregator.signature(name, f[name].survivors(survivors))
    proof = f.aggregator.close_signatures()
    return [f[name].proof(proof) for name in asked]


def refusals(f: Federation) -> dict[str, AbortReason]:
    """How far a roster of these comes."""
    found = {}
    for name in f.names:
        try:
            advert = f[name].offer(f.offer, model_digest=MODEL, config_digest=CONFIG)
            f.aggregator.advert(name, advert)
        except Refused as refused:
            found[name] = refused.reason
    roster = f.aggregator.close_adverts()
    for name in f.names:
        try:
            f[name].roster(roster)
        except Refused as refused:
            found.setdefault(name, refused.reason)
    return found


def test_five_of_eight_reveal_and_the_other_three_do_not_make_a_second_sum() -> None:
    """Five shares rebuild every secret, so the sum over all eight is open; the three have revealed nothing yet."""
    memories: dict[str, Remembered] = {}
    assert len(proved_to(attempt(NAMES, memories, 1), NAMES[:5])) == 5
    rest = attempt(NAMES[5:], memories, 2)
    assert refusals(rest) == dict.fromkeys(NAMES[5:], AbortReason.ROSTER_SHRUNK)


def test_nor_with_the_corrupt_one_that_does_not_remember() -> None:
    memories: dict[str, Remembered] = {}
    proved_to(attempt(NAMES, memories, 1), NAMES[:5])
    memories[NAMES[0]] = Remembered()
    rest = attempt((NAMES[0], *NAMES[5:]), memories, 2)
    found = refusals(rest)
    assert {found[name] for name in NAMES[5:]} == {AbortReason.ROSTER_SHRUNK}


def test_also_those_that_only_uploaded() -> None:
    """They were never shown a survivor set: what became of their upload they cannot know."""
    memories: dict[str, Remembered] = {}
    attempt(NAMES, memories, 1).until_uploaded()
    assert refusals(attempt(NAMES[5:], memories, 2)) == dict.fromkeys(NAMES[5:], AbortReason.ROSTER_SHRUNK)
    assert refusals(attempt(NAMES[4:], memories, 3)) == dict.fromkeys(NAMES[4:], AbortReason.ROSTER_SHRUNK)


def test_an_attempt_that_failed_is_tried_again_with_all_but_a_few() -> None:
    """Five of eight are back: had the first attempt been opened, one of them would have revealed and refuse."""
    memories: dict[str, Remembered] = {}
    attempt(NAMES, memories, 1).until_uploaded()
    for number in (2, 3):
        assert refusals(attempt(NAMES[3:], memories, number)) == {}
    assert len(proved_to(attempt(NAMES, memories, 4), NAMES)) == 8


def test_another_model_is_another_matter() -> None:
    memories: dict[str, Remembered] = {}
    attempt(NAMES, memories, 1).until_uploaded()
    for memory in memories.values():
        memory.receipts = {
            key: replace(receipt, base_digest=CONFIG) for key, receipt in memory.receipts.items()
        }
    assert refusals(attempt(NAMES[5:], memories, 2)) == {}


def test_passive_a_coordinator_that_keeps_to_the_protocol_is_not_asked() -> None:
    memories: dict[str, Remembered] = {}
    attempt(NAMES, memories, 1, level=Level.PASSIVE).until_uploaded()
    assert refusals(attempt(NAMES[5:], memories, 2, level=Level.PASSIVE)) == {}


@pytest.mark.parametrize("signatures", [5, 6])
def test_a_majority_that_signed_is_not_all_but_the_dropouts(signatures: int) -> None:
    """One of eight may drop out, over the whole attempt: seven sign. Five are a majority that no other set can have, and
    leave three for a second sum."""
    f = attempt(NAMES, {}, 1)
    f.until_uploaded()
    survivors = f.aggregator.close_uploads()
    for name in f.names:
        f.aggregator.signature(name, f[name].survivors(survivors))
    proof = f.aggregator.close_signatures()
    with pytest.raises(Refused, match="too_few_signatures"):
        f[NAMES[0]].proof(SetProof(signatures=proof.signatures[:signatures]))
    assert isinstance(f[NAMES[1]].proof(SetProof(signatures=proof.signatures[:7])), Reveal)


def test_how_many_have_to_be_back() -> None:
    memories: dict[str, Remembered] = {}
    attempt(NAMES, memories, 1).until_uploaded()
    (receipt,) = memories[NAMES[0]].receipts.values()
    assert isinstance(receipt, Receipt)
    assert (receipt.threshold, receipt.corrupt, receipt.returning) == (5, 1, 5)
