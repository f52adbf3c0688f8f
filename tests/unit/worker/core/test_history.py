"""A coordinator that undoes what was committed is noticed, whatever way it goes about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_wire import messages
from ssd_wire.messages import BlobRef, Delta, ModelVersion, Welcome
from worker.core import effects, events
from worker.core.history import contradiction
from worker.core.session import step
from worker.core.state import Link, Session
from worker.errors import CoordinatorFault

BLOB = BlobRef(digest="f" * 64, size=4)


def digest(number: int, past: str = "") -> str:
    return f"{past}{number:0{64 - len(past)}x}"


def offer(number: int, *, past: str = "", steps: int = 0) -> ModelVersion:
    deltas = tuple(
        Delta(number=each, blob=BLOB, model_digest=digest(each, past))
        for each in range(number - steps + 1, number + 1)
    )
    return ModelVersion(number=number, model_digest=digest(number, past), full=BLOB, deltas=deltas)


@given(seen=st.integers(0, 30), further=st.integers(0, 30), steps=st.integers(0, 30))
def test_a_history_that_only_grew_is_no_contradiction(seen: int, further: int, steps: int) -> None:
    newest = seen + further
    assert contradiction((seen, digest(seen)), offer(newest, steps=min(steps, newest))) == ""


@given(seen=st.integers(1, 30), back=st.integers(1, 30))
def test_an_older_version_is_a_contradiction(seen: int, back: int) -> None:
    wrong = contradiction((seen, digest(seen)), offer(max(0, seen - back)))
    assert f"saw version {seen}" in wrong


@given(seen=st.integers(1, 30), further=st.integers(0, 10))
def test_another_past_is_a_contradiction_wherever_the_offer_reaches_that_far(seen: int, further: int) -> None:
    offered = offer(seen + further, past="bad", steps=further + 1)
    assert f"version {seen} is bad" in contradiction((seen, digest(seen)), offered)


def test_who_saw_nothing_believes_anything() -> None:
    assert contradiction((0, ""), offer(7)) == ""


# ------------------------------------------------------------------------------------------------ the session


def welcome(version: ModelVersion, run: str = "run-1") -> Welcome:
    return Welcome(
        protocol=1,
        session="s",
        run_id=run,
        declaration=BLOB,
        declaration_digest="d" * 64,
        held_fates=(),
        reinitialise={},
        data_endpoints=(),
        heartbeat_seconds=5.0,
        update_encoding="float16",
        delta_encoding="float16",
        max_cohort=10,
        max_client_weight=10,
        max_upload_bytes=100,
        version=version,
    )


def dialling(number: int = 5, **changes: object) -> Session:
    session = Session(clients={"a": 0}, run_id="run-1", newest=(number, digest(number)))
    session, out = step(replace(session, **changes), events.DialDue())
    (hello,) = [effect for effect in out if isinstance(effect, effects.OpenLink)]
    assert hello.newest == ((0, "") if session.accepts_rollback else session.newest)
    return session


def of(kind: type, out: tuple[effects.Effect, ...]) -> list:
    return [effect for effect in out if isinstance(effect, kind)]


@pytest.mark.parametrize("offered", [offer(4), offer(5, past="bad"), offer(6, past="bad", steps=2)])
def test_a_welcome_that_contradicts_ends_the_worker_before_it_does_anything(offered: ModelVersion) -> None:
    session, out = step(dialling(), events.Welcomed(welcome=welcome(offered)))
    assert session.stopped
    assert session.newest == (5, digest(5))
    (distrust,) = of(effects.Distrust, out)
    assert "run-1" in distrust.detail
    assert {type(effect) for effect in out} == {effects.Distrust, effects.CloseLink}


def test_the_operator_may_say_once_that_the_past_is_another() -> None:
    session, out = step(dialling(accepts_rollback=True), events.Welcomed(welcome=welcome(offer(4))))
    assert session.link is Link.ATTENDING
    assert of(effects.RememberVersion, out) == [effects.RememberVersion(number=4, model_digest=digest(4))]
    assert "rollback_accepted" in [note.event for note in of(effects.Note, out)]
    session, out = step(session, events.LinkLost(reason="x", detail="", uniform=0.5))
    session, _ = step(session, events.DialDue())
    session, out = step(session, events.Welcomed(welcome=welcome(offer(3))))
    assert of(effects.Distrust, out)


def test_what_is_seen_is_remembered_when_it_is_news() -> None:
    session, out = step(dialling(), events.Welcomed(welcome=welcome(offer(5))))
    assert of(effects.RememberVersion, out) == []
    committed = messages.Committed(round=6, version=offer(6), included=())
    session, out = step(session, committed)
    assert of(effects.RememberVersion, out) == [effects.RememberVersion(number=6, model_digest=digest(6))]
    for wrong in (offer(5), offer(6, past="bad")):
        with pytest.raises(CoordinatorFault, match="a commit that cannot be"):
            step(session, messages.Committed(round=wrong.number, version=wrong, included=()))


def test_another_run_has_another_past_and_its_own_memory() -> None:
    known = events.StoredRun(run_id="run-2", newest=(9, digest(9)))
    session, out = step(dialling(), events.Welcomed(welcome=welcome(offer(1), "run-3")))
    assert not session.stopped
    kinds = [type(effect) for effect in out]
    assert kinds.index(effects.EnterRun) < kinds.index(effects.RememberVersion)
    session, out = step(dialling(), events.Welcomed(welcome=welcome(offer(8), "run-2"), stored=known))
    assert session.stopped
    assert of(effects.Distrust, out)
