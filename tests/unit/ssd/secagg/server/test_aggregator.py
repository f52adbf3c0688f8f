"""Participants that lie: which adverts, bundles, uploads and signatures are not taken, and who is expelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from secure.aggregator_scenes import NAMES, R, aborted, federation, rejected, revealing
from secure.secure_rounds import (
    CONFIG,
    MODEL,
    Drawn,
    Federation,
    masked,
    names_of,
    offer_for,
    registry,
    signing_key,
)
from ssd.secagg.client.round_keys import RoundKeys
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Reveal,
    ShareBundle,
    digest,
)
from ssd.secagg.protocol.policy import AggregatorPolicy, ParticipantPolicy
from ssd.secagg.protocol.signatures import sign_advert
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.members import Phase


def own_advert(f: Federation, name: str) -> Advert:
    return f[name].offer(f.offer, model_digest=MODEL, config_digest=CONFIG)


def signed(f: Federation, advert: Advert) -> Advert:
    return sign_advert(signing_key(advert.name), digest(f.offer), advert)


def test_an_advert_under_another_name_is_refused_and_its_sender_expelled() -> None:
    f = federation()
    advert = own_advert(f, NAMES[1])
    rejected(lambda: f.aggregator.advert(NAMES[0], advert), R.WRONG_NAME, expelled=True)
    rejected(lambda: f.aggregator.advert(NAMES[0], own_advert(f, NAMES[0])), R.EXPELLED, expelled=False)
    f.aggregator.advert(NAMES[1], advert)


def test_an_advert_of_somebody_that_was_not_asked_is_refused() -> None:
    f = federation()
    rejected(
        lambda: f.aggregator.advert("somebody", replace(own_advert(f, NAMES[0]), name="somebody")),
        R.UNKNOWN_SENDER,
        expelled=False,
    )


def test_the_same_advert_twice_is_one_and_another_one_expels() -> None:
    f = federation()
    advert = own_advert(f, NAMES[0])
    f.aggregator.advert(NAMES[0], advert)
    f.aggregator.advert(NAMES[0], advert)
    other = signed(f, RoundKeys(NAMES[0], Drawn("other")).advert(f.offer))
    rejected(lambda: f.aggregator.advert(NAMES[0], other), R.CONFLICTING_MESSAGE, expelled=True)
    f.advertise(NAMES[1:])
    assert [advert.name for advert in f.aggregator.close_adverts().adverts] == list(NAMES[1:])


@pytest.mark.parametrize("field", ["channel_key", "mask_key"])
def test_a_key_that_is_no_key_is_refused(field: str) -> None:
    f = federation()
    bad = signed(f, replace(own_advert(f, NAMES[0]), **{field: bytes(32)}))
    rejected(lambda: f.aggregator.advert(NAMES[0], bad), R.BAD_KEY, expelled=True)


def test_an_advert_signed_by_somebody_else_is_refused() -> None:
    f = federation()
    bad = sign_advert(signing_key("somebody"), digest(f.offer), own_advert(f, NAMES[0]))
    rejected(lambda: f.aggregator.advert(NAMES[0], bad), R.BAD_SIGNATURE, expelled=True)


def test_an_advert_of_another_round_is_refused() -> None:
    f, before = federation(), federation(round_id=b"the-round-before")
    rejected(
        lambda: f.aggregator.advert(NAMES[0], own_advert(before, NAMES[0])), R.BAD_SIGNATURE, expelled=True
    )


def test_a_participant_the_registry_lacks_is_refused() -> None:
    f = federation()
    f.aggregator = Aggregator(f.offer, NAMES, AggregatorPolicy(), registry(NAMES[1:]))
    rejected(lambda: f.aggregator.advert(NAMES[0], own_advert(f, NAMES[0])), R.NOT_REGISTERED, expelled=True)


@pytest.mark.parametrize("field", ["channel_key", "mask_key", "nonce", "commitment"])
def test_another_participants_values_are_refused(field: str) -> None:
    f = federation()
    f.advertise(NAMES[:1])
    stolen = getattr(f.aggregator._adverts[NAMES[0]], field)
    bad = signed(f, replace(own_advert(f, NAMES[1]), **{field: stolen}))
    rejected(lambda: f.aggregator.advert(NAMES[1], bad), R.DUPLICATE_KEY, expelled=True)


def test_one_key_for_both_purposes_is_refused() -> None:
    f = federation()
    advert = own_advert(f, NAMES[0])
    bad = signed(f, replace(advert, mask_key=advert.channel_key))
    rejected(lambda: f.aggregator.advert(NAMES[0], bad), R.DUPLICATE_KEY, expelled=True)


def test_no_more_than_were_offered_are_taken() -> None:
    f = Federation(offer=offer_for(3, Level.PASSIVE), names=NAMES[:4])
    f.advertise(NAMES[:3])
    rejected(lambda: f.aggregator.advert(NAMES[3], own_advert(f, NAMES[3])), R.ROSTER_SIZE, expelled=False)


def test_level_active_cannot_be_without_a_registry() -> None:
    with pytest.raises(ValueError, match="registry"):
        Aggregator(offer_for(10), NAMES, AggregatorPolicy(), None)


def bundled() -> tuple[Federation, dict[str, ShareBundle]]:
    f = federation()
    f.advertise(NAMES)
    roster = f.aggregator.close_adverts()
    return f, {name: f[name].roster(roster) for name in NAMES}


BUNDLES: dict[str, tuple[Callable[[ShareBundle], ShareBundle], AbortReason]] = {
    "under another name": (lambda b: replace(b, sender=NAMES[1]), R.WRONG_NAME),
    "one recipient less": (lambda b: replace(b, entries=b.entries[1:]), R.WRONG_RECIPIENTS),
    "another recipient": (
        lambda b: replace(b, entries=(*b.entries[:-1], replace(b.entries[-1], peer="x-sybil"))),
        R.WRONG_RECIPIENTS,
    ),
}


@pytest.mark.parametrize(("change", "reason"), BUNDLES.values(), ids=BUNDLES)
def test_a_wrong_bundle_expels_its_sender(
    change: Callable[[ShareBundle], ShareBundle], reason: AbortReason
) -> None:
    f, bundles = bundled()
    rejected(lambda: f.aggregator.shares(NAMES[0], change(bundles[NAMES[0]])), reason, expelled=True)
    for name in NAMES[1:]:
        f.aggregator.shares(name, bundles[name])
    assert f.aggregator.complete()
    assert NAMES[0] not in f.aggregator.close_shares()


def test_a_second_bundle_expels_and_the_first_does_not_count() -> None:
    f, bundles = bundled()
    for name in NAMES:
        f.aggregator.shares(name, bundles[name])
    f.aggregator.shares(NAMES[0], bundles[NAMES[0]])
    second = replace(
        bundles[NAMES[0]], entries=tuple(replace(e, nonce=bytes(12)) for e in bundles[NAMES[0]].entries)
    )
    rejected(lambda: f.aggregator.shares(NAMES[0], second), R.CONFLICTING_MESSAGE, expelled=True)
    assert list(f.aggregator.close_shares()) == list(NAMES[1:])


def test_messages_of_other_phases_are_refused_and_change_nothing() -> None:
    f, bundles = bundled()
    a = f.aggregator
    advert = a._adverts[NAMES[0]]
    rejected(lambda: a.advert(NAMES[0], advert), R.UNEXPECTED_MESSAGE, expelled=False)
    rejected(lambda: a.uploaded(NAMES[0]), R.UNEXPECTED_MESSAGE, expelled=False)
    rejected(
        lambda: a.reveal(NAMES[0], Reveal(name=NAMES[0], entries=())), R.UNEXPECTED_MESSAGE, expelled=False
    )
    assert a.phase is Phase.ROSTERED
    for step in (a.close_adverts, a.close_uploads, a.close_signatures, a.unmask, a.state):
        with pytest.raises(RuntimeError):
            step()
    with pytest.raises(RuntimeError):
        a.finish(bytes(32), bytes(32))


def test_a_phase_is_closed_in_its_turn_only() -> None:
    f = federation()
    f.advertise(NAMES)
    a = f.aggregator
    for step in (a.close_shares, a.close_uploads, a.close_signatures, a.unmask, a.state):
        with pytest.raises(RuntimeError, match="not in phase offered"):
            step()
    f.share(NAMES)
    for step in (a.close_adverts, a.close_uploads, a.close_signatures, a.unmask, a.state):
        with pytest.raises(RuntimeError, match="not in phase rostered"):
            step()
    f.deliver(NAMES)
    with pytest.raises(RuntimeError, match="not in phase uploading"):
        a.close_shares()


def test_an_upload_of_somebody_that_did_not_share_is_refused() -> None:
    f = federation()
    f.advertise(NAMES)
    f.share(NAMES[1:])
    f.deliver(NAMES[1:])
    rejected(lambda: f.aggregator.uploaded(NAMES[0]), R.UNKNOWN_SENDER, expelled=False)


def test_an_upload_after_the_close_is_refused() -> None:
    f = federation(Level.PASSIVE)
    f.until_uploaded(NAMES)
    f.aggregator.close_uploads()
    rejected(lambda: f.aggregator.uploaded(NAMES[0]), R.UNEXPECTED_MESSAGE, expelled=False)


def test_whoever_was_expelled_after_sharing_is_a_dropout() -> None:
    f = federation(Level.PASSIVE)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    f.aggregator._members.expelled.add(NAMES[0])
    rejected(lambda: f.aggregator.uploaded(NAMES[0]), R.EXPELLED, expelled=False)
    f.upload(NAMES[1:])
    f.survive(NAMES[1:])
    f.reveal(NAMES[1:])
    assert (f.open() == f.expected(NAMES[1:])).all()


def test_the_coordinators_own_minimum_holds_for_survivors_too() -> None:
    f = Federation(
        offer=offer_for(10, Level.PASSIVE),
        names=NAMES,
        aggregator_policy=AggregatorPolicy(min_participants=10),
    )
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    f.upload(NAMES[1:])
    assert not f.aggregator.may_close()
    aborted(f.aggregator.close_uploads, R.TOO_FEW_SURVIVORS)
    aborted(f.aggregator.close_uploads, R.TOO_FEW_SURVIVORS)
    rejected(lambda: f.aggregator.uploaded(NAMES[0]), R.UNEXPECTED_MESSAGE, expelled=False)


def test_enough_honest_ones_for_the_noise_are_needed_from_the_start_to_the_end() -> None:
    """Of ten, one is assumed corrupt: nine honest ones need all ten, ten honest ones cannot be had."""

    def federation(min_honest: int) -> Federation:
        policy = AggregatorPolicy(min_honest=min_honest)
        return Federation(offer=offer_for(10, Level.PASSIVE), names=NAMES, aggregator_policy=policy)

    few = federation(10)
    few.advertise(NAMES)
    assert not few.aggregator.may_close()
    aborted(few.aggregator.close_adverts, R.TOO_FEW_ADVERTS)
    f = federation(9)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    f.upload(NAMES[1:])
    assert not f.aggregator.may_close()
    aborted(f.aggregator.close_uploads, R.TOO_FEW_SURVIVORS)
    g = federation(8)
    g.advertise(NAMES)
    g.share(NAMES)
    g.deliver(NAMES)
    g.upload(NAMES[1:])
    g.survive(NAMES[1:])
    assert (g.aggregator.least, g.aggregator.honest) == (9, 8)


def test_a_ring_with_a_hole_is_no_survivor_set() -> None:
    """The floor is met, but one participant's neighbours could not answer for it."""
    names = names_of(66)
    offer = offer_for(66, Level.PASSIVE, graph=Graph.RING, gamma_ppm=100_000, delta_ppm=300_000)
    f = Federation(offer=offer, names=names)
    f.advertise(names)
    f.share(names)
    f.aggregator.close_shares()
    layout = f.aggregator._layout
    near = layout.neighbours(names[0])[: layout.neighbour_count + 2 - layout.threshold]
    for name in names:
        if name not in near:
            f.aggregator.uploaded(name)
    assert len(names) - len(near) >= layout.fewest
    assert not f.aggregator.may_close()
    aborted(f.aggregator.close_uploads, R.TOO_FEW_SURVIVORS)


def test_a_signature_of_another_set_or_of_somebody_else_is_refused() -> None:
    f = federation()
    f.until_uploaded(NAMES)
    survivors = f.aggregator.close_uploads()
    answers = [f[name].survivors(survivors) for name in NAMES]
    stolen = replace(answers[1], name=NAMES[0])
    rejected(lambda: f.aggregator.signature(NAMES[0], stolen), R.BAD_SIGNATURE, expelled=True)
    rejected(lambda: f.aggregator.signature(NAMES[2], answers[3]), R.WRONG_NAME, expelled=True)
    rejected(lambda: f.aggregator.signature("somebody", answers[3]), R.UNKNOWN_SENDER, expelled=False)


def test_an_upload_added_twice_shows_in_the_sum() -> None:
    f, _ = revealing()
    f.reveal(NAMES)
    f.uploads[NAMES[0]] = f.uploads[NAMES[0]] + masked(f.one_hot(NAMES[0]), [])
    assert f.open()[0] == 2
    assert np.count_nonzero(f.open() != 1) == 1


def test_policies_nothing_could_fulfil_are_refused() -> None:
    with pytest.raises(ValueError, match="two"):
        AggregatorPolicy(min_participants=1)
    for changes in (
        {"min_participants": 1},
        {"min_participants": 9, "max_participants": 8},
        {"max_participants": 1 << 20},
        {"min_gamma_ppm": -1},
        {"max_delta_ppm": 1_000_000},
    ):
        with pytest.raises(ValueError, match="participants|fractions"):
            ParticipantPolicy(**changes)
