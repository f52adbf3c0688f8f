"""Whole rounds: the opened sum is the plain sum of the survivors, whoever drops out and whenever."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure.secure_rounds import Federation, names_of, offer_for
from ssd.secagg.protocol.errors import Aborted, AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import Graph
from ssd.secagg.server.members import Phase

LEVELS = pytest.mark.parametrize("level", list(Level))


def federation(count: int, level: Level, **changes: object) -> Federation:
    return Federation(offer=offer_for(count, level, **changes), names=names_of(count))


def without(names: Collection[str], gone: Collection[str]) -> list[str]:
    return [name for name in names if name not in gone]


def run(f: Federation, gone: dict[str, Collection[str]]) -> list[str]:
    """A whole round in which `gone[phase]` drop out before they say anything in that phase; returns the survivors."""
    alive: list[str] = list(f.names)

    def left(phase: str) -> list[str]:
        alive[:] = without(alive, gone.get(phase, ()))
        return alive

    f.advertise(left("advert"))
    f.share(left("shares"))
    f.deliver(left("delivery"))
    f.upload(left("upload"))
    survivors = list(alive)
    f.survive(left("signature"))
    f.reveal(left("reveal"))
    return survivors


@LEVELS
@pytest.mark.parametrize("count", [3, 5, 8])
def test_without_dropouts_everybody_is_in_the_sum(level: Level, count: int) -> None:
    f = federation(count, level)
    survivors = run(f, {})
    assert (f.open() == f.expected(survivors)).all()
    assert f.aggregator.phase is Phase.READY


@LEVELS
@pytest.mark.parametrize("phase", ["shares", "delivery", "upload", "signature", "reveal"])
@pytest.mark.parametrize("count", [1, 2])
def test_as_many_dropouts_as_are_tolerated_in_any_phase_change_nothing_but_who_is_in_the_sum(
    level: Level, phase: str, count: int
) -> None:
    # 10 participants: 2 may drop out. One assumed corrupt: t = 6 (both levels), 6 signatures.
    f = federation(10, level)
    gone = f.names[3 : 3 + count]
    survivors = run(f, {phase: gone})
    late = phase in ("signature", "reveal")
    assert survivors == (list(f.names) if late else without(f.names, gone))
    assert (f.open() == f.expected(survivors)).all()


@LEVELS
def test_whoever_says_nothing_to_the_offer_is_not_counted(level: Level) -> None:
    f = federation(10, level)
    survivors = run(f, {"advert": f.names[:5], "upload": f.names[5:6]})
    assert survivors == list(f.names[6:])
    assert (f.open() == f.expected(survivors)).all()


@LEVELS
def test_dropouts_in_several_phases_add_up_to_the_same_tolerance(level: Level) -> None:
    f = federation(20, level)
    gone = {
        "shares": f.names[0:1],
        "delivery": f.names[5:6],
        "upload": f.names[18:20],
        "reveal": f.names[7:9],
    }
    survivors = run(f, gone)
    assert (f.open() == f.expected(survivors)).all()


TOO_MANY = [
    ("shares", 3, AbortReason.TOO_FEW_SHARERS),
    ("delivery", 3, AbortReason.TOO_FEW_SURVIVORS),
    ("upload", 3, AbortReason.TOO_FEW_SURVIVORS),
    ("reveal", 5, AbortReason.TOO_FEW_REVEALS),
]


@LEVELS
@pytest.mark.parametrize(("phase", "count", "reason"), TOO_MANY)
def test_one_dropout_too_many_aborts_and_leaves_nothing(
    level: Level, phase: str, count: int, reason: AbortReason
) -> None:
    f = federation(10, level)
    with pytest.raises(Aborted) as stopped:
        run(f, {phase: f.names[:count]})
        f.open()
    assert stopped.value.reason is reason
    assert f.aggregator.phase is Phase.ABORTED
    with pytest.raises(Aborted):
        f.aggregator.unmask()


def test_too_few_signatures_abort_before_anybody_reveals() -> None:
    f = federation(10, Level.ACTIVE)
    with pytest.raises(Aborted) as stopped:
        run(f, {"signature": f.names[:5]})
    assert stopped.value.reason is AbortReason.TOO_FEW_SIGNATURES


def test_too_few_adverts_abort() -> None:
    f = federation(3, Level.PASSIVE)
    with pytest.raises(Aborted) as stopped:
        run(f, {"advert": f.names[:2]})
    assert stopped.value.reason is AbortReason.TOO_FEW_ADVERTS


def test_a_roster_no_threshold_fits_aborts() -> None:
    f = federation(6, Level.ACTIVE, gamma_ppm=400_000, delta_ppm=400_000)
    with pytest.raises(Aborted) as stopped:
        run(f, {})
    assert stopped.value.reason is AbortReason.NO_THRESHOLD
    assert f.aggregator.phase is Phase.ABORTED


def test_two_participants_that_dropped_out_together_need_no_common_mask() -> None:
    f = federation(10, Level.PASSIVE)
    survivors = run(f, {"upload": f.names[:2]})
    masks = f.aggregator.unmask()
    assert len(masks) == len(survivors) + 2 * len(survivors)
    assert (f.open() == f.expected(survivors)).all()


@settings(max_examples=10, deadline=None)
@given(data=st.data(), level=st.sampled_from(list(Level)), count=st.integers(5, 10))
def test_any_tolerated_dropouts_open_the_plain_sum(data: st.DataObject, level: Level, count: int) -> None:
    f = federation(count, level, gamma_ppm=50_000)
    tolerated = count * 200_000 // 1_000_000
    drawn = data.draw(st.lists(st.sampled_from(f.names), unique=True, max_size=tolerated))
    phases = [data.draw(st.sampled_from(["shares", "delivery", "upload", "reveal"])) for _ in drawn]
    gone: dict[str, list[str]] = {}
    for name, phase in zip(drawn, phases, strict=True):
        gone.setdefault(phase, []).append(name)
    survivors = run(f, gone)
    assert (f.open() == f.expected(survivors)).all()


def test_a_ring_of_neighbours_opens_the_plain_sum_too() -> None:
    f = federation(66, Level.ACTIVE, graph=Graph.RING, gamma_ppm=50_000, delta_ppm=50_000)
    survivors = run(f, {"shares": f.names[10:11], "upload": f.names[20:21], "reveal": f.names[30:31]})
    layout = f.aggregator._layout
    assert layout.neighbour_count < 30
    assert all(len(layout.neighbours(name)) == layout.neighbour_count for name in f.names)
    for name in f.names:
        assert all(name in layout.neighbours(other) for other in layout.neighbours(name))
    assert (f.open() == f.expected(survivors)).all()


def test_a_participant_that_was_only_slow_is_taken_back() -> None:
    f = federation(5, Level.PASSIVE)
    f.aggregator.lost(f.names[0])
    f.advertise(f.names[1:])
    assert f.aggregator.complete()
    f.advertise(f.names[:1])
    f.share(f.names)
    f.aggregator.lost(f.names[0])
    f.deliver(f.names)
    f.upload(f.names)
    f.survive(f.names)
    f.reveal(f.names)
    assert (f.open() == f.expected(f.names)).all()


def test_what_is_masked_looks_like_nothing() -> None:
    f = federation(5, Level.ACTIVE)
    f.until_uploaded()
    for name, words in f.uploads.items():
        assert (words > 1 << 16).all(), name
    one = sum((f.uploads[name] for name in f.names[:4]), np.zeros(5, np.uint32))
    assert (one > 1 << 16).all()


@LEVELS
def test_the_phase_says_when_it_may_be_closed_and_when_nothing_more_can_come(level: Level) -> None:
    f = federation(10, level)
    a = f.aggregator
    f.advertise(f.names[:1])
    assert not a.may_close()
    f.advertise(f.names[1:9])
    assert a.may_close()
    assert not a.complete()
    assert a.missing() == {f.names[9]}
    a.lost(f.names[9])
    assert a.complete()
    roster = a.close_adverts()
    assert not a.may_close()
    for name in f.names[:9]:
        a.shares(name, f[name].roster(roster))
    assert a.may_close()
    f.deliver(f.names[:9])
    f.upload(f.names[:7])
    assert not a.may_close()
    f.upload(f.names[7:8])
    assert a.may_close()
    assert not a.complete()
    f.survive(f.names[:8])
    assert a.complete() == (level is Level.ACTIVE)
    f.reveal(f.names[:6])
    assert a.may_close()
    assert not a.complete()
    assert (f.open() == f.expected(f.names[:8])).all()
