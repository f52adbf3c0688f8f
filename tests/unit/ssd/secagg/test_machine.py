"""Any order of saying, hearing, losing, doubling, crashing and restarting, against a model of a few sets.

Should happen: a sum that is opened is the plain sum of exactly the survivors. Should not happen: two openings on one
base in which one participant revealed, both kinds of shares of one participant from one holder, an unforeseen error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secure.secure_rounds import CONFIG, MODEL, Federation, Remembered, masked, names_of, offer_for
from ssd.secagg.numbers.masking import apply_masks, negated
from ssd.secagg.protocol.errors import Aborted, Refused, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    Advert,
    Kind,
    Offer,
    Reveal,
    Roster,
    SetProof,
    ShareBundle,
    ShareDelivery,
    Survivors,
)
from ssd.secagg.protocol.policy import AggregatorPolicy
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.members import Phase

NAMES = names_of(6)
"""One may drop out, t = 4 and 4 signatures in level active, with one assumed corrupt."""
index = st.integers(0, 1 << 16)


class Machine(RuleBasedStateMachine):
    """One coordinator, six participants, a network that keeps nothing in order."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[str, Remembered] = {}
        self.attempt = 0
        self.revealed: dict[str, set[tuple[bytes, str, Kind]]] = {name: set() for name in NAMES}
        self.bases: dict[str, set[bytes]] = {name: set() for name in NAMES}
        self.level = Level.ACTIVE
        self.opened: list[Any] = []

    @initialize(level=st.sampled_from(list(Level)))
    def begin(self, level: Level) -> None:
        self.level = level
        self.new_attempt()

    def new_attempt(self) -> None:
        self.attempt += 1
        offer = offer_for(6, self.level, round_id=self.attempt.to_bytes(16, "big"), attempt=self.attempt)
        self.f = Federation(offer=offer, names=NAMES, memories=self.memories)
        self.down: list[tuple[str, Any]] = [(name, offer) for name in NAMES]
        self.up: list[tuple[str, Any]] = []
        self.heard_uploads: set[str] = set()
        self.taken: dict[type, set[str]] = {}

    # ------------------------------------------------------------------------------------------------ the network

    @precondition(lambda self: self.down)
    @rule(at=index, again=st.booleans())
    def say(self, at: int, again: bool) -> None:
        """Any message arrives at its participant, perhaps to come again."""
        name, message = self.down[at % len(self.down)] if again else self.down.pop(at % len(self.down))
        participant = self.f[name]
        try:
            match message:
                case Offer():
                    answer: Any = participant.offer(message, model_digest=MODEL, config_digest=CONFIG)
                case Roster():
                    answer = participant.roster(message)
                case ShareDelivery():
                    answer = participant.delivery(message)
                    self.f.uploads.setdefault(name, masked(self.f.one_hot(name), participant.masks()))
                    self.up.append((name, "upload"))
                case Survivors():
                    answer = participant.survivors(message)
                case SetProof():
                    answer = participant.proof(message)
        except Refused:
            return
        if answer is not None:
            self.up.append((name, answer))
        if isinstance(answer, Reveal):
            for entry in answer.entries:
                self.revealed[name].add((self.f.offer.round_id, entry.about, entry.kind))
            self.bases[name].add(self.f.offer.round_id)

    @precondition(lambda self: self.up)
    @rule(at=index, again=st.booleans())
    def hear(self, at: int, again: bool) -> None:
        """Any message arrives at the coordinator."""
        name, message = self.up[at % len(self.up)] if again else self.up.pop(at % len(self.up))
        a, before = self.f.aggregator, self.f.aggregator.phase
        try:
            match message:
                case Advert():
                    a.advert(name, message)
                case ShareBundle():
                    a.shares(name, message)
                case Reveal():
                    a.reveal(name, message)
                    a.rebuild()
                case "upload":
                    a.uploaded(name)
                    self.heard_uploads.add(name)
                    self.f[name].uploaded()
                case _:
                    a.signature(name, message)
            self.taken.setdefault(type(message), set()).add(name)
        except (Rejected, Refused):
            pass
        assert a.phase is before

    @precondition(lambda self: self.down or self.up)
    @rule(at=index)
    def lose(self, at: int) -> None:
        """Any message is lost."""
        at %= len(self.down) + len(self.up)
        if at < len(self.down):
            self.down.pop(at)
        else:
            self.up.pop(at - len(self.down))

    # ---------------------------------------------------------------------------------------------- the processes

    @rule(at=index)
    def crash(self, at: int) -> None:
        """A participant starts again: its keys are gone, its memory is not."""
        name = NAMES[at % 6]
        self.f[name].close()
        self.f.participants[name] = self.f.participant(name)

    @rule()
    def restart(self) -> None:
        """The coordinator starts again: with a survivor set it goes on, without one the attempt is over."""
        a = self.f.aggregator
        if a.phase in (Phase.SIGNING, Phase.REVEALING):
            self.f.aggregator = Aggregator.restore(a.state(), AggregatorPolicy(), self.f.registry)
            assert self.f.aggregator.phase is a.phase
            self.f.aggregator.rebuild()
        else:
            self.new_attempt()

    @rule(patient=st.booleans())
    def close(self, patient: bool) -> None:
        """The phase is closed; impatiently, whatever comes of it."""
        a = self.f.aggregator
        enough = a.may_close()
        if patient and not enough:
            return
        try:
            self.down += self.closed(a)
        except Aborted:
            assert not enough
            assert a.phase is Phase.ABORTED
            self.new_attempt()

    def closed(self, a: Aggregator) -> list[tuple[str, Any]]:
        match a.phase:
            case Phase.OFFERED:
                roster = a.close_adverts()
                assert {advert.name for advert in roster.adverts} == self.taken.get(Advert, set())
                return [(advert.name, roster) for advert in roster.adverts]
            case Phase.ROSTERED:
                deliveries = a.close_shares()
                assert deliveries.keys() == self.taken[ShareBundle]
                return list(deliveries.items())
            case Phase.UPLOADING:
                survivors = a.close_uploads()
                assert set(survivors.names) == self.heard_uploads
                return [(name, survivors) for name in survivors.names]
            case Phase.SIGNING:
                proof = a.close_signatures()
                assert a.survivors is not None
                return [(name, proof) for name in a.survivors.names]
            case _:
                masks = a.unmask()
                assert a.survivors is not None
                total = sum((self.f.uploads[name] for name in a.survivors.names), np.zeros(6, np.uint32))
                apply_masks(total, 0, negated(masks))
                assert (total == self.f.expected(a.survivors.names)).all()
                self.opened.append(frozenset(a.survivors.names))
                self.new_attempt()
                return []

    @rule()
    def in_order(self) -> None:
        """Everything arrives, once and in order: so that rounds are opened, too."""
        while self.down:
            self.say(0, again=False)
        while self.up:
            self.hear(0, again=False)
        self.close(patient=True)

    # ------------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def nobody_reveals_both_shares_of_one_participant(self) -> None:
        for told in self.revealed.values():
            assert len({(round_id, about) for round_id, about, _ in told}) == len(told)

    @invariant()
    def nobody_reveals_twice_over_one_base(self) -> None:
        assert all(len(rounds) <= 1 for rounds in self.bases.values())

    @invariant()
    def one_base_is_opened_at_most_once(self) -> None:
        assert len(self.opened) <= 1


Machine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMachine = Machine.TestCase


def test_the_machine_opens_a_round_when_nothing_goes_wrong() -> None:
    for level in Level:
        machine = Machine()
        machine.begin(level)
        for _ in range(6):
            machine.in_order()
        assert machine.opened == [frozenset(NAMES)]
        for _ in range(6):
            machine.in_order()
        assert machine.opened == [frozenset(NAMES)]
