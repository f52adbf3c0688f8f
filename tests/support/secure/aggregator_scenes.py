"""Attempts at a chosen phase, and what the aggregator has to say to a wrong message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from secure.secure_rounds import (
    Federation,
    names_of,
    offer_for,
)
from ssd.secagg.protocol.errors import Aborted, AbortReason, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Reveal,
)

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
