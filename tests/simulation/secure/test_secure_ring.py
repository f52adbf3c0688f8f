"""A sum on the sparse graph, above 200 participants: the coordinator's machine and real participants in one process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from coordinator.core.secure_aggregation.attempt import Rules, SecureAttempt
from coordinator.core.secure_aggregation.outcomes import Outcome, ParticipantsFixed, Persist, ReadyToOpen
from coordinator.core.secure_aggregation.participants import CohortStatus
from secure.secure_rounds import CONFIG, MODEL, Remembered, masked, names_of, offer_for, registry, signing_key
from ssd.secagg.client.participant import Participant
from ssd.secagg.numbers.masking import apply_masks, negated
from ssd.secagg.protocol import checks, keys
from ssd.secagg.protocol.errors import AbortReason, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Graph,
    Offer,
    Roster,
    SetProof,
    ShareDelivery,
    Survivors,
    decode,
    encode,
)
from ssd.secagg.protocol.policy import AggregatorPolicy, ParticipantPolicy
from ssd.secagg.server.aggregator import Aggregator

COUNT, SIZE, PHASE = 204, 513, 10.0
NAMES = names_of(COUNT)
GONE = {
    "Offer": set(NAMES[5:8]),
    "Roster": set(NAMES[50:53]),
    "upload": {NAMES[0], *NAMES[100:106]},
    "Survivors": set(NAMES[170:174]),
    "reveal": set(NAMES[190:193]),
}
"""What somebody does not live to answer. Of 204, 20 may drop out."""
SECONDS = 10.0
"""Of processor time."""


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All participants check the same keys and signatures; here each is looked at once, by whoever comes first."""
    monkeypatch.setattr(keys, "is_public", cache(keys.is_public))
    for name in ("advert_is_signed", "survivors_are_signed"):
        monkeypatch.setattr(checks, name, cache(getattr(checks, name)))


class Ring:
    """Everybody in one process; what the coordinator's machine has to say is answered at once."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.registry = registry(NAMES) if level is Level.ACTIVE else None
        rules = Rules(elastic=True, min_participants=2, phase_seconds=PHASE)
        self.attempt = SecureAttempt(rules, NAMES, self.offer, self.aggregator, 0.0)
        self.participants = {name: self.participant(name) for name in NAMES}
        self.answered: set[tuple[str, str]] = set()
        self.outcomes: list[Outcome] = []
        self.total = np.zeros(SIZE, np.uint32)
        values = np.random.default_rng(7).integers(0, 1 << 32, (COUNT, SIZE), np.uint32)
        self.values = dict(zip(NAMES, values, strict=True))

    def offer(self, participants: int) -> Offer:
        return offer_for(participants, self.level, graph=Graph.RING, gamma_ppm=50_000, delta_ppm=100_000)

    def aggregator(self, offer: Offer, names: tuple[str, ...]) -> Aggregator:
        return Aggregator(offer, names, AggregatorPolicy(), self.registry)

    def participant(self, name: str) -> Participant:
        return Participant(
            name=name,
            policy=ParticipantPolicy(level=self.level, min_participants=150),
            registry=self.registry,
            signer=signing_key(name) if self.level is Level.ACTIVE else None,
            entropy=secrets.token_bytes,
            memory=Remembered(),
        )

    def speak(self, now: float) -> None:
        """Deliver what is due until nobody who lives has anything more to answer."""
        moved = True
        while moved:
            moved = False
            for name in NAMES:
                for what in self.attempt.due(name):
                    if (name, what) not in self.answered:
                        self.answered.add((name, what))
                        moved = True
                        self.answer(name, decode(self.attempt.content(what, name)), now)

    def answer(self, name: str, said: object, now: float) -> None:
        participant = self.participants[name]
        if any(name in GONE[kind] for kind in GONE if gone_at(kind, said)):
            return
        match said:
            case Offer():
                answer = participant.offer(said, model_digest=MODEL, config_digest=CONFIG)
            case Roster():
                answer = participant.roster(said)
            case ShareDelivery():
                participant.delivery(said)
                self.total += masked(self.values[name].copy(), participant.masks())
                self.attempt.uploaded(name)
                participant.uploaded()
                return
            case Survivors():
                answer = participant.survivors(said)
            case SetProof():
                answer = participant.proof(said)
            case _:
                raise AssertionError(said)
        try:
            self.outcomes += self.attempt.receive(name, encode(answer), now)
            work = self.attempt.rebuilding()
            if work is not None:
                while work.step():
                    pass
                self.outcomes += self.attempt.rebuilt(work, now)
        except Rejected as late:
            # Enough had signed before: the phase is over.
            if not isinstance(said, Survivors) or late.reason is not AbortReason.UNEXPECTED_MESSAGE:
                raise


def gone_at(kind: str, said: object) -> bool:
    """Whether a participant that does not answer `kind` says nothing to this, or to anything after it."""
    order = ["Offer", "Roster", "ShareDelivery", "Survivors", "SetProof"]
    fatal = {"upload": "ShareDelivery", "reveal": "SetProof"}.get(kind, kind)
    return order.index(type(said).__name__) >= order.index(fatal)


@pytest.mark.parametrize("level", list(Level))
def test_a_sum_over_a_ring_of_204_with_dropouts_in_every_phase_is_exact(level: Level) -> None:
    """Should happen: the sum of the survivors' vectors, bit for bit, in bounded time."""
    started = time.process_time()
    ring = Ring(level)
    hosts: Mapping[str, str] = {name: name for name in NAMES}
    ring.attempt.look(CohortStatus(hosts=hosts, goal=COUNT), 0.0)
    now = 0.0
    for _ in range(2):
        ring.speak(now)
        now += PHASE
        ring.outcomes += ring.attempt.advance(now)
    ring.speak(now)
    ring.outcomes += ring.attempt.close(now)
    for _ in range(2):
        ring.speak(now)
        now += PHASE
        ring.outcomes += ring.attempt.advance(now)
    aggregator = ring.attempt.aggregator
    assert aggregator is not None
    survivors = [
        name for name in NAMES if not any(name in GONE[kind] for kind in ("Offer", "Roster", "upload"))
    ]
    assert ring.attempt.survivors == tuple(survivors)
    assert [type(each) for each in ring.outcomes if isinstance(each, ParticipantsFixed | ReadyToOpen)] == [
        ParticipantsFixed,
        ReadyToOpen,
    ]
    assert any(isinstance(each, Persist) for each in ring.outcomes)
    neighbours = {len(aggregator._layout.neighbours(name)) for name in survivors[:20]}
    assert neighbours == {aggregator._layout.neighbour_count}
    assert aggregator._layout.neighbour_count < 60
    masks = aggregator.unmask()
    # One self mask for each survivor, and for each dropout as many as it has living neighbours.
    assert len(masks) < len(survivors) + 10 * 60
    apply_masks(ring.total, 0, negated(masks))
    expected = np.sum([ring.values[name] for name in survivors], axis=0, dtype=np.uint32)
    assert (ring.total == expected).all()
    assert time.process_time() - started < SECONDS


def test_a_ring_on_which_too_many_dropped_out_is_not_opened() -> None:
    ring = Ring(Level.PASSIVE)
    ring.attempt.look(CohortStatus(hosts={name: name for name in NAMES}, goal=COUNT), 0.0)
    for now in (0.0, PHASE):
        ring.speak(now)
        ring.attempt.advance(now + PHASE)
    for name in NAMES[120:145]:
        ring.participants[name].close()
        ring.answered.add((name, "delivery"))
    ring.speak(2 * PHASE)
    (given_up,) = ring.attempt.close(2 * PHASE)
    assert type(given_up).__name__ == "AttemptGivenUp"
    assert ring.attempt.over
