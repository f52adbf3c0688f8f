"""Lies of a coordinator: attempts that one of its lies is in, and what everybody has to say to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from secure.secure_rounds import (
    Federation,
    Liar,
    names_of,
    offer_for,
    outcomes,
)
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Graph,
    Roster,
    ShareDelivery,
    Survivors,
)
from ssd.secagg.protocol.policy import ParticipantPolicy

NAMES = names_of(10)
"""Of 10, two may drop out and one is assumed corrupt: 8 must survive and sign, 6 shares rebuild."""
HALF, OTHER_HALF = NAMES[:5], NAMES[5:]
POLICY = ParticipantPolicy(
    level=Level.ACTIVE,
    min_participants=4,
    max_participants=100,
    min_gamma_ppm=100_000,
    max_delta_ppm=200_000,
    ring_bits=frozenset({24, 32}),
    max_total_weight=1000,
)
R = AbortReason


def attacked(liar: type[Liar], **changes: Any) -> Federation:
    given = {"offer": offer_for(10), "names": NAMES, "policy": POLICY, "aggregator_class": liar}
    return Federation(**(given | changes))


def everybody_says(f: Federation, reason: AbortReason, **options: Any) -> None:
    assert outcomes(f, **options) == dict.fromkeys(f.names, reason)


def telling(kind: type, change: Callable[[Liar, str, Any], Any]) -> type[Liar]:
    """A liar that changes one kind of message."""

    class ToldOtherwise(Liar):
        def tell(self, name: str, message: Any) -> Any:
            return change(self, name, message) if isinstance(message, kind) else message

    return ToldOtherwise


def without(roster: Roster, name: str) -> Roster:
    return Roster(adverts=tuple(advert for advert in roster.adverts if advert.name != name))


def group(name: str) -> tuple[str, ...]:
    return HALF if name in HALF else OTHER_HALF


def less(delivery: ShareDelivery, gone: Collection[str]) -> ShareDelivery:
    return replace(
        delivery,
        sharers=tuple(each for each in delivery.sharers if each not in gone),
        entries=tuple(entry for entry in delivery.entries if entry.peer not in gone),
    )


def neighbour(name: str) -> str:
    return NAMES[(NAMES.index(name) + 1) % 10]


def gone(survivors: Survivors, *names: str) -> Survivors:
    return replace(survivors, names=tuple(each for each in survivors.names if each not in names))


MANY = names_of(66)


def ring(liar: type[Liar], **fractions: int) -> Federation:
    offer = offer_for(
        66, Level.PASSIVE, graph=Graph.RING, **({"gamma_ppm": 50_000, "delta_ppm": 50_000} | fractions)
    )
    policy = replace(POLICY, level=Level.PASSIVE, min_gamma_ppm=50_000, max_delta_ppm=300_000)
    return Federation(offer=offer, names=MANY, policy=policy, aggregator_class=liar)
