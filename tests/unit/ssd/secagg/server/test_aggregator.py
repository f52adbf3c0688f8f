"""Participants that lie, and an aggregator that restarts: what is not taken, who is expelled, what is rebuilt."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
import pytest

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
from ssd.secagg.protocol import shamir
from ssd.secagg.protocol.errors import Aborted, AbortReason, MalformedMessage, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    Advert,
    Graph,
    Kind,
    Reveal,
    RevealedShare,
    Roster,
    ShareBundle,
    digest,
    encode,
)
from ssd.secagg.protocol.policy import AggregatorPolicy, ParticipantPolicy
from ssd.secagg.protocol.signatures import sign_advert
from ssd.secagg.server import journal, opening, rebuilding
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.members import Phase
from ssd.secagg.server.rebuilding import MAX_TRIES, Search

NAMES = names_of(10)
R = AbortReason
LEVELS = pytest.mark.parametrize("level", list(Level))


def federation(level: Level = Level.ACTIVE, **changes: Any) -> Federation:
    return Federation(offer=offer_for(10, level, **changes), names=NAMES)


def rejected(act: Callable[[], object], reason: AbortReason, *, expelled: bool) -> None:
    with pytest.raises(Rejected) as caught:
        act()
    assert (caught.value.reason, caught.value.expelled) == (reason, expelled)


def aborted(act: Callable[[], object], reason: AbortReason) -> None:
    with pytest.raises(Aborted) as caught:
        act()
    assert caught.value.reason is reason


def own_advert(f: Federation, name: str) -> Advert:
    return f[name].offer(f.offer, model_digest=MODEL, config_digest=CONFIG)


def signed(f: Federation, advert: Advert) -> Advert:
    return sign_advert(signing_key(advert.name), digest(f.offer), advert)


# ---------------------------------------------------------------------------------------------------- adverts


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


# ------------------------------------------------------------------------------------------- shares and uploads


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


# -------------------------------------------------------------------------------------------------- signatures


def test_a_signature_of_another_set_or_of_somebody_else_is_refused() -> None:
    f = federation()
    f.until_uploaded(NAMES)
    survivors = f.aggregator.close_uploads()
    answers = [f[name].survivors(survivors) for name in NAMES]
    stolen = replace(answers[1], name=NAMES[0])
    rejected(lambda: f.aggregator.signature(NAMES[0], stolen), R.BAD_SIGNATURE, expelled=True)
    rejected(lambda: f.aggregator.signature(NAMES[2], answers[3]), R.WRONG_NAME, expelled=True)
    rejected(lambda: f.aggregator.signature("somebody", answers[3]), R.UNKNOWN_SENDER, expelled=False)


# ----------------------------------------------------------------------------------------------------- reveals


def revealing(
    level: Level = Level.PASSIVE, uploaders: tuple[str, ...] = NAMES
) -> tuple[Federation, dict[str, Reveal]]:
    f = federation(level)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    f.upload(uploaders)
    f.survive(uploaders)
    if level is Level.PASSIVE:
        return f, f._revealed
    proof = f.aggregator.close_signatures()
    return f, {name: f[name].proof(proof) for name in uploaders}


def with_share(reveal: Reveal, index: int, **changes: Any) -> Reveal:
    entries = list(reveal.entries)
    entries[index] = replace(entries[index], **changes)
    return replace(reveal, entries=tuple(entries))


REVEALS: dict[str, tuple[Callable[[Reveal], Reveal], AbortReason]] = {
    "under another name": (lambda r: replace(r, name=NAMES[5]), R.WRONG_NAME),
    "one share less": (lambda r: replace(r, entries=r.entries[1:]), R.WRONG_REVEAL),
    "one share more": (
        lambda r: replace(r, entries=(*r.entries, RevealedShare(about="x", kind=Kind.SELF, share=bytes(32)))),
        R.WRONG_REVEAL,
    ),
    "the other kind of a survivor": (lambda r: with_share(r, 0, kind=Kind.MASK), R.WRONG_REVEAL),
    "the other kind of a dropout": (lambda r: with_share(r, 9, kind=Kind.SELF), R.WRONG_REVEAL),
    "y = p": (lambda r: with_share(r, 3, share=shamir.P.to_bytes(32, "big")), R.BAD_SHARE),
    "y > p": (lambda r: with_share(r, 3, share=b"\xff" * 32), R.BAD_SHARE),
}


@pytest.mark.parametrize(("change", "reason"), REVEALS.values(), ids=REVEALS)
def test_a_wrong_reveal_expels_its_sender(change: Callable[[Reveal], Reveal], reason: AbortReason) -> None:
    f, reveals = revealing(uploaders=NAMES[:9])
    rejected(lambda: f.aggregator.reveal(NAMES[0], change(reveals[NAMES[0]])), reason, expelled=True)
    f.reveal(NAMES[1:9])
    assert (f.open() == f.expected(NAMES[:9])).all()


def test_a_reveal_of_somebody_that_is_no_survivor_is_refused() -> None:
    f, reveals = revealing(uploaders=NAMES[:9])
    foreign = replace(reveals[NAMES[0]], name=NAMES[9])
    rejected(lambda: f.aggregator.reveal(NAMES[9], foreign), R.UNKNOWN_SENDER, expelled=False)


def test_the_same_reveal_twice_is_one_share() -> None:
    f, reveals = revealing()
    for _ in range(2):
        for name in NAMES[:5]:
            f.aggregator.reveal(name, reveals[name])
    f.aggregator.rebuild()
    assert not f.aggregator.may_close()
    aborted(f.aggregator.unmask, R.TOO_FEW_REVEALS)
    assert f.aggregator._revealed is None


@LEVELS
@pytest.mark.parametrize("liars", [1, 2])
def test_wrong_shares_are_found_and_their_holders_named(level: Level, liars: int) -> None:
    """t = 6 of 10: with up to two wrong ones of nine, other choices of six are right."""
    f, reveals = revealing(level, uploaders=NAMES[:9])
    for name in NAMES[:liars]:
        bad = replace(
            reveals[name], entries=tuple(replace(each, share=b"\x01" * 32) for each in reveals[name].entries)
        )
        f.aggregator.reveal(name, bad)
        f.aggregator.rebuild()
    for name in NAMES[liars:9]:
        f.aggregator.reveal(name, reveals[name])
        f.aggregator.rebuild()
    assert f.aggregator.may_close()
    assert f.aggregator.wrong == set(NAMES[:liars])
    assert (f.open() == f.expected(NAMES[:9])).all()


def test_one_wrong_share_of_just_enough_waits_for_one_more() -> None:
    f, reveals = revealing()
    f.aggregator.reveal(NAMES[0], with_share(reveals[NAMES[0]], 4, share=b"\x01" * 32))
    for name in NAMES[1:6]:
        f.aggregator.reveal(name, reveals[name])
    f.aggregator.rebuild()
    assert not f.aggregator.may_close()
    f.aggregator.reveal(NAMES[6], reveals[NAMES[6]])
    f.aggregator.rebuild()
    assert f.aggregator.may_close()
    assert f.aggregator.wrong == {NAMES[0]}
    assert (f.open() == f.expected(NAMES)).all()


def test_shares_that_fit_nothing_abort() -> None:
    f, reveals = revealing()
    f.aggregator.reveal(NAMES[0], with_share(reveals[NAMES[0]], 4, share=b"\x01" * 32))
    for name in NAMES[1:6]:
        f.aggregator.reveal(name, reveals[name])
    f.aggregator.rebuild()
    aborted(f.aggregator.unmask, R.UNVERIFIABLE_SECRET)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_participant_that_shared_something_else_than_it_advertised_aborts(kind: Kind) -> None:
    """Its shares rebuild a secret, and that is compared with the advert: the sum would be noise."""
    f = federation(Level.PASSIVE)
    liar = NAMES[9]
    f.advertise(NAMES)
    secrets = f[liar]._own
    assert secrets is not None
    setattr(secrets, "_self_secret" if kind is Kind.SELF else "_mask_seed", b"\x02" * 32)
    f.share(NAMES)
    f.deliver(NAMES)
    uploaders = NAMES if kind is Kind.SELF else NAMES[:9]
    f.upload(uploaders)
    f.survive(uploaders)
    f.reveal(uploaders)
    assert not f.aggregator.may_close()
    aborted(f.aggregator.unmask, R.UNVERIFIABLE_SECRET)


def choices_of(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[int]]:
    """Every choice of holders, by their points, that is tried from now on (as long as none fits)."""
    tried: list[frozenset[int]] = []
    combine = rebuilding.shamir.combine

    def counted(shares: dict[int, bytes], **more: int) -> bytes:
        tried.append(frozenset(shares))
        return combine(shares, **more)

    monkeypatch.setattr(rebuilding.shamir, "combine", counted)
    return tried


def searched(count: int) -> tuple[Search, list[str], dict[str, bytes]]:
    """The search for the first participant's own secret, the holders in the order they come, and the right shares."""
    names = names_of(count)
    roster = Roster(adverts=tuple(RoundKeys(each, Drawn(each)).advert(offer_for(count)) for each in names))
    layout = Layout.of(offer_for(count), roster)
    secret = RoundKeys(names[0], Drawn(names[0]))._self_secret
    points = {each: layout.points[each] for each in names}
    shares = shamir.split(secret, layout.threshold, list(points.values()), Drawn("shares"))
    return Search(layout, names[0], Kind.SELF), list(names), {each: shares[x] for each, x in points.items()}


def test_a_secret_that_was_never_shared_costs_a_bounded_search_and_no_choice_is_tried_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One lying participant: at each further share all choices used to be tried from the beginning."""
    search, names, _ = searched(40)
    threshold = search._layout.threshold
    made_up = {each: bytes([1, index]) + bytes(30) for index, each in enumerate(names)}
    tried = choices_of(monkeypatch)
    for upto in range(1, len(names) + 1):
        before = len(tried)
        assert search.go_on({each: made_up[each] for each in names[:upto]}) is None
        point = search._layout.points[names[upto - 1]]
        assert all(point in choice for choice in tried[before:])
        assert len(tried) > before or upto < threshold, "a new share is always worth a try"
    assert len(set(tried)) == len(tried) == search.tried <= MAX_TRIES + len(names)


@pytest.mark.parametrize("holders", range(8))
def test_choices_are_all_there_are_each_once_and_leave_out_as_few_of_the_first_as_they_can(
    holders: int,
) -> None:
    ordered = [f"w{index}" for index in range(holders)]
    for count in range(holders + 1):
        expected: dict[tuple[str, ...], None] = {}
        for excluded in range(holders - count + 1):
            for out in combinations(ordered, excluded):
                expected.setdefault(tuple([each for each in ordered if each not in out][:count]))
        found = list(rebuilding._choices(ordered, count))
        assert found == list(expected)
        assert set(found) == set(combinations(ordered, count))


@pytest.mark.parametrize("threshold", [2, 3, 25])
def test_where_there_are_fewer_choices_than_may_be_tried_nothing_else_is_run_through(
    monkeypatch: pytest.MonkeyPatch, threshold: int
) -> None:
    """A few neighbours on a ring and a small threshold: to leave out others than before gives mostly known choices."""
    drawn = 0

    def counted(*args: Any) -> Iterator[tuple[str, ...]]:
        nonlocal drawn
        for each in combinations(*args):
            drawn += 1
            assert drawn <= 2 * MAX_TRIES, "these are not the choices"
            yield each

    monkeypatch.setattr(rebuilding, "combinations", counted)
    ordered = [f"w{index:02}" for index in range(25)]
    found = list(islice(rebuilding._choices(ordered, threshold - 1), MAX_TRIES))
    assert len(found) == drawn == min(comb(25, threshold - 1), MAX_TRIES)


def test_a_search_with_threshold_two_tries_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search, names, _ = searched(26)
    search._layout = replace(search._layout, threshold=2)
    tried = choices_of(monkeypatch)
    made_up = {each: bytes([1, index]) + bytes(30) for index, each in enumerate(names)}
    assert search.go_on(made_up) is None
    points = [search._layout.points[each] for each in names]
    assert len(tried) == len(set(tried))
    assert set(tried) == {frozenset(pair) for pair in combinations(points, 2)}


@pytest.mark.parametrize(
    ("count", "liars"), [(12, (0, 1)), (12, (0, 5)), (60, (0, 20)), (60, (30, 31)), (60, tuple(range(9)))]
)
def test_wrong_shares_that_come_early_do_not_keep_the_secret_from_being_found(
    count: int, liars: tuple[int, ...]
) -> None:
    search, names, shares = searched(count)
    wrong = {names[each] for each in liars}
    given = {each: b"\x01" * 32 if each in wrong else share for each, share in shares.items()}
    found = [search.go_on({each: given[each] for each in names[:upto]}) for upto in range(1, count + 1)]
    first = next(each for each in found if each is not None)
    assert first.secret == RoundKeys(names[0], Drawn(names[0]))._self_secret
    assert first.wrong <= wrong


def test_a_round_with_several_liars_has_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_TRIES_IN_ALL", 30)
    f, reveals = revealing()
    tried = choices_of(monkeypatch)
    for name in NAMES[1:]:
        nonsense = tuple(
            replace(each, share=name[1:].encode() * 8 + bytes(8)) for each in reveals[name].entries
        )
        f.aggregator.reveal(name, replace(reveals[name], entries=nonsense))
        f.aggregator.rebuild()
    assert len(tried) <= 30 + len(NAMES) * (len(NAMES) - f.aggregator._layout.threshold)
    aborted(f.aggregator.unmask, R.UNVERIFIABLE_SECRET)


def test_a_search_under_way_takes_nothing_that_comes_meanwhile_and_another_follows() -> None:
    f, reveals = revealing()
    for name in NAMES[:6]:
        f.aggregator.reveal(
            name, with_share(reveals[name], 4, share=b"\x01" * 32) if name == NAMES[0] else reveals[name]
        )
    work = f.aggregator.rebuilding()
    assert work is not None
    f.aggregator.reveal(NAMES[6], reveals[NAMES[6]])
    assert f.aggregator.rebuilding() is None
    while work.step():
        assert f.aggregator.searching
    assert f.aggregator.searching
    f.aggregator.rebuilt(work)
    assert not f.aggregator.may_close()
    assert f.aggregator.searching
    f.aggregator.rebuild()
    assert f.aggregator.may_close()
    assert not f.aggregator.searching
    assert (f.open() == f.expected(NAMES)).all()


def test_what_is_searched_for_cannot_be_printed_or_pickled() -> None:
    f, reveals = revealing()
    for name in NAMES[:6]:
        f.aggregator.reveal(name, reveals[name])
    work = f.aggregator.rebuilding()
    assert repr(work) == "Rebuilding(10 to do)"
    with pytest.raises(TypeError):
        pickle.dumps(work)


# ------------------------------------------------------------------------------------------------------ restart


def restarted(f: Federation) -> Aggregator:
    return Aggregator.restore(f.aggregator.state(), AggregatorPolicy(), f.registry)


@LEVELS
def test_a_coordinator_that_starts_again_goes_on_where_it_was(level: Level) -> None:
    f = federation(level)
    f.advertise(NAMES)
    f.share(NAMES)
    f.deliver(NAMES)
    f.upload(NAMES[1:])
    survivors = f.aggregator.close_uploads()
    f.aggregator = restarted(f)
    assert f.aggregator.survivors == survivors
    answers: dict[str, Any] = {name: f[name].survivors(survivors) for name in NAMES[1:]}
    if level is Level.ACTIVE:
        for name in NAMES[1:5]:
            f.aggregator.signature(name, answers[name])
        f.aggregator = restarted(f)
        for name in NAMES[5:8]:
            f.aggregator.signature(name, answers[name])
        proof = f.aggregator.close_signatures()
        f.aggregator = restarted(f)
        assert f.aggregator.proof == proof
        answers = {name: f[name].proof(proof) for name in NAMES[1:]}
    for name in NAMES[1:5]:
        f.aggregator.reveal(name, answers[name])
    f.aggregator = restarted(f)
    assert f.aggregator.missing() == set(NAMES[5:])
    for name in NAMES[5:8]:
        f.aggregator.reveal(name, answers[name])
    f.aggregator = restarted(f)
    assert (f.open() == f.expected(NAMES[1:])).all()
    again = restarted(f)
    again.rebuild()
    assert again.unmask() == f.aggregator.unmask()


def test_what_is_kept_before_the_reveals_holds_no_secret() -> None:
    f = federation(Level.PASSIVE)
    f.until_uploaded(NAMES)
    f.aggregator.close_uploads()
    state = f.aggregator.state()
    for name in NAMES:
        for shares in f[name]._held.values():
            assert not any(share in state for share in shares)


def test_a_kept_state_that_was_changed_is_refused() -> None:
    f, reveals = revealing(Level.ACTIVE)
    f.aggregator.reveal(NAMES[0], reveals[NAMES[0]])
    state = f.aggregator.state()
    for bad in (b"", state[:-1], state[1:], journal.MAGIC, state + b"\0", pickle.dumps({})):
        with pytest.raises(MalformedMessage):
            Aggregator.restore(bad, AggregatorPolicy(), f.registry)
    with pytest.raises(MalformedMessage):
        journal.read(state + journal.write([encode(f.offer)])[len(journal.MAGIC) :])
    with pytest.raises(Rejected):
        Aggregator.restore(state, AggregatorPolicy(), registry(NAMES[1:]))
    with pytest.raises(Aborted):
        Aggregator.restore(state, AggregatorPolicy(min_participants=11), f.registry)


def test_after_the_end_nothing_is_left_to_reveal() -> None:
    f, reveals = revealing()
    f.reveal(NAMES)
    f.open()
    opened = f.aggregator.finish(bytes(32), MODEL)
    assert opened.survivors == 10
    assert f.aggregator._revealed is None
    rejected(lambda: f.aggregator.reveal(NAMES[0], reveals[NAMES[0]]), R.UNEXPECTED_MESSAGE, expelled=False)


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
