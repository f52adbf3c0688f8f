"""An aggregator that restarts: what is kept, what a changed state is worth, and what is left at the end."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from secure.aggregator_scenes import LEVELS, NAMES, R, federation, rejected, revealing
from secure.secure_rounds import (
    MODEL,
    Federation,
    registry,
)
from ssd.secagg.protocol.errors import Aborted, MalformedMessage, Rejected
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.messages import (
    encode,
)
from ssd.secagg.protocol.policy import AggregatorPolicy
from ssd.secagg.server import journal
from ssd.secagg.server.aggregator import Aggregator


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
        for name in NAMES[5:9]:
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
