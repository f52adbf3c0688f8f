"""Whole rounds: the opened sum is the plain sum of the survivors, whoever drops out and whenever."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from secure_rounds import Federation, names_of, offer_for
from ssd.secagg.aggregator import Phase
from ssd.secagg.graph import Level

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
