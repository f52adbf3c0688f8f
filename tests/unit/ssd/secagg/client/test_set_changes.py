"""Two honest rounds whose participants differ by one: the difference of their sums is that one's update."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from secure.lying import NAMES, POLICY
from secure.secure_rounds import Federation, Remembered, offer_for
from ssd.secagg.protocol.errors import AbortReason, Refused
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import Survivors

LEVELS = pytest.mark.parametrize("level", [Level.PASSIVE, Level.ACTIVE])


def round_of(
    number: int, names: Collection[str], memories: dict[str, Remembered], *, change: int, level: Level
) -> tuple[Federation, Survivors]:
    """Over a model of its own; everybody in it uploads, and the survivor set is made."""
    offer = offer_for(
        10,
        level,
        round_id=number.to_bytes(16, "big"),
        round=number,
        model_digest=bytes([number]) * 32,
    )
    f = Federation(
        offer=offer,
        names=tuple(sorted(names)),
        policy=replace(POLICY, level=level, min_set_change=change),
        memories=memories,
    )
    f.until_uploaded()
    return f, f.aggregator.close_uploads()


def answers(f: Federation, survivors: Survivors) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in f.names:
        try:
            f[name].survivors(survivors)
            found[name] = "signed"
        except Refused as refused:
            found[name] = refused.reason
    return found


@LEVELS
def test_one_that_is_missing_is_not_shown_by_the_next_sum(level: Level) -> None:
    memories: dict[str, Remembered] = {}
    assert set(answers(*round_of(1, NAMES, memories, change=2, level=level)).values()) == {"signed"}
    found = answers(*round_of(2, NAMES[1:], memories, change=2, level=level))
    assert found == dict.fromkeys(NAMES[1:], AbortReason.SET_TOO_SIMILAR)


@LEVELS
def test_nor_by_one_after_the_next(level: Level) -> None:
    """The coordinator puts another round in between: it is compared with those signed lately, not with the last alone."""
    memories: dict[str, Remembered] = {}
    for number, names in enumerate((NAMES, NAMES[3:]), start=1):
        answers(*round_of(number, names, memories, change=2, level=level))
    found = answers(*round_of(3, NAMES[1:], memories, change=2, level=level))
    assert {found[name] for name in NAMES[3:]} == {AbortReason.SET_TOO_SIMILAR}


@LEVELS
def test_the_very_same_set_and_one_that_differs_enough_are_signed(level: Level) -> None:
    memories: dict[str, Remembered] = {}
    for number, names in enumerate((NAMES, NAMES, NAMES[2:], NAMES), start=1):
        found = answers(*round_of(number, names, memories, change=2, level=level))
        assert set(found.values()) == {"signed"}, number


def test_without_that_bound_one_may_come_or_go() -> None:
    memories: dict[str, Remembered] = {}
    for number, names in enumerate((NAMES, NAMES[1:], NAMES), start=1):
        found = answers(*round_of(number, names, memories, change=1, level=Level.ACTIVE))
        assert set(found.values()) == {"signed"}
