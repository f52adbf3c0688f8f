"""What is revealed and rebuilt: wrong shares are found, their holders named, and no search goes on without end."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, islice
from math import comb
from typing import Any

import pytest

from secure.aggregator_scenes import LEVELS, NAMES, R, aborted, federation, rejected, revealing
from secure.secure_rounds import (
    Drawn,
    names_of,
    offer_for,
)
from ssd.secagg.client.round_keys import RoundKeys
from ssd.secagg.protocol import shamir
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout
from ssd.secagg.protocol.messages import (
    Kind,
    Reveal,
    RevealedShare,
    Roster,
)
from ssd.secagg.server import opening, rebuilding
from ssd.secagg.server.rebuilding import MAX_TRIES, Search


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
