"""Measuring on probe data, with the real driver and stores: whose offer is taken, who is asked next, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.evaluation.records import MOST_NAMES
from coordinator.parts import Coordinator
from coordinator.workers.sessions import Session
from rounds.driver_harness import ManualClock, driver, messages, settle
from rounds.driver_harness import simulate as play
from ssd.trust.names import Role, Subject
from ssd_wire.messages import Capabilities, Evaluate, EvaluationDone, Hello

Scene = Callable[[Coordinator, ManualClock], Awaitable[None]]
ANSWER = {"accuracy": 0.6}


def simulate(tmp_path: Path, scene: Scene, **evaluation: Any) -> None:
    """Play a scene at version 0, which is due, of a run under TLS."""
    clock = ManualClock()
    settings = {"every": 1, "answer_seconds": 10.0, **evaluation}

    async def scene_with_clock(subject: Coordinator) -> None:
        await scene(subject, clock)

    play(
        scene_with_clock,
        lambda: driver(
            tmp_path, proven=True, clock=clock, changes={"limits": {"heartbeat_seconds": 0.05}}, **settings
        ),
    )


async def attach(subject: Coordinator, name: str, role: Role = Role.EVALUATOR, *clients: str) -> Session:
    hello = Hello(
        worker=name,
        instance="0" * 32,
        clients=dict.fromkeys(clients, 0),
        capabilities=Capabilities(evaluates=True),
    )
    return await subject.attendance.attach(hello, Subject("f", role, name))


async def answer(
    subject: Coordinator, session: Session, values: Mapping[str, float], error: str = "", version: int = 0
) -> None:
    done = EvaluationDone(version=version, values=values, error=error)
    await subject.attendance.evaluation_done(session, done)


def recorded(subject: Coordinator) -> dict[int, dict[str, float]]:
    return {version: dict(values) for version, values in subject.evaluations.by_version.items()}


async def passed(subject: Coordinator, clock: ManualClock, seconds: float) -> None:
    """Time passes, everybody reports as workers do, and the loop takes a turn."""
    clock.now += seconds
    for session in subject.sessions:
        subject.attendance.note_contact(session)
    await asyncio.sleep(0.15)


def test_a_workers_offer_to_measure_is_taken_only_if_the_operator_named_it(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        mallory = await attach(subject, "aaa", Role.WORKER)
        assert not subject.evaluations.outstanding
        named = await attach(subject, "site", Role.WORKER, "a")
        assert not messages(mallory, Evaluate)
        assert len(messages(named, Evaluate)) == 1
        await answer(subject, mallory, {"accuracy": 1.0})
        assert recorded(subject) == {}
        await answer(subject, named, ANSWER)
        assert recorded(subject) == {0: ANSWER}
        views = subject.sessions.views(0.0)
        assert {each.worker: each.capabilities.evaluates for each in views} == {"aaa": False, "site": True}

    simulate(tmp_path, scene, workers=["site"])


@pytest.mark.parametrize("how", ["silent", "error", "too many", "impossible", "gone"])
def test_after_one_that_fails_the_next_is_asked(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(subject: Coordinator, clock: ManualClock) -> None:
        first, second = await attach(subject, "aaa"), await attach(subject, "bbb")
        assert len(messages(first, Evaluate)) == 1
        assert not messages(second, Evaluate)
        if how == "silent":
            await passed(subject, clock, 9.0)
            assert not messages(second, Evaluate)
            await passed(subject, clock, 2.0)
        elif how == "gone":
            subject.attendance.detach(first)
            await settle()
        else:
            wrong = {"too many": {f"m{n}": 1.0 for n in range(50_000)}, "impossible": {"accuracy": 2.0}}
            await answer(subject, first, wrong.get(how, {}), "out_of_memory" if how == "error" else "")
        assert len(messages(second, Evaluate)) == 1
        assert recorded(subject) == {}
        # Too late: it was given up.
        await answer(subject, first, {"accuracy": 0.1})
        assert recorded(subject) == {}
        await answer(subject, second, ANSWER)
        assert recorded(subject) == {0: ANSWER}
        assert caplog.messages.count("evaluation_failed") == (how != "gone")
        assert not subject.evaluations.outstanding

    simulate(tmp_path, scene)


def test_a_run_does_not_wait_without_end_for_those_that_never_answer(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, clock: ManualClock) -> None:
        sessions = [await attach(subject, name) for name in ("aaa", "bbb")]
        for asked in sessions:
            assert subject.evaluations.outstanding
            assert len(messages(asked, Evaluate)) == 1
            await passed(subject, clock, 11.0)
        assert not subject.evaluations.outstanding
        await passed(subject, clock, 11.0)
        assert [len(messages(session, Evaluate)) for session in sessions] == [1, 1]

    simulate(tmp_path, scene)


def test_nor_for_one_that_comes_and_goes(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        asked = 0
        for _ in range(8):
            session = await attach(subject, "aaa")
            asked += len(messages(session, Evaluate))
            subject.attendance.detach(session)
            await settle()
        assert asked == 3
        assert not subject.evaluations.outstanding

    simulate(tmp_path, scene)


def test_several_measure_the_middle_counts_and_a_disagreement_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        sessions = [await attach(subject, name) for name in ("a1", "b2", "c3", "d4")]
        assert [len(messages(session, Evaluate)) for session in sessions] == [1, 1, 1, 0]
        for session, accuracy in zip(sessions, (1.0, 0.60, 0.61), strict=False):
            assert recorded(subject) == {}
            await answer(subject, session, {"accuracy": accuracy})
        assert recorded(subject) == {0: {"accuracy": 0.61}}
        assert caplog.messages.count("evaluators_disagree") == 1
        value = subject.given.metrics.registry.get_sample_value
        assert value("ssd_coordinator_evaluator_disagreements_total") == 1

    simulate(tmp_path, scene, evaluators=3)


def test_fewer_than_are_wanted_are_enough_and_agree_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        sessions = [await attach(subject, name) for name in ("a1", "b2")]
        await answer(subject, sessions[0], {"accuracy": 0.60})
        await answer(subject, sessions[1], {"accuracy": 0.61})
        assert recorded(subject) == {0: {"accuracy": 0.60}}
        assert "evaluators_disagree" not in caplog.messages

    simulate(tmp_path, scene, evaluators=5)


def test_an_evaluator_that_is_called_like_a_worker_fences_nobody_and_is_not_it(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await attach(subject, "site", Role.WORKER, "a", "b")
        evaluator = await attach(subject, "site", Role.EVALUATOR)
        assert worker.open
        assert evaluator.open
        assert subject.sessions.worker("site") is worker
        assert dict(subject.machine.state.hosts) == {"a": "site", "b": "site"}
        assert {each.worker for each in subject.sessions.views(0.0)} == {"site", "evaluator/site"}
        await subject.attendance.change_clients(evaluator, {})
        again = await attach(subject, "site", Role.WORKER, "a", "b")
        assert not worker.open
        assert evaluator.open
        subject.attendance.detach(evaluator)
        await settle()
        assert again.open
        assert dict(subject.machine.state.hosts) == {"a": "site", "b": "site"}

    simulate(tmp_path, scene)


def test_a_run_keeps_so_many_measures_and_no_more_by_whatever_names(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        session = await attach(subject, "e")
        assert messages(session, Evaluate)
        records = subject.evaluations._records
        for number in range(8):
            await records.add(0, {f"v{number}_m{index}": float(number) for index in range(60)} | ANSWER)
        assert len(recorded(subject)[0]) == MOST_NAMES
        assert MOST_NAMES < 8 * 60
        await records.add(0, {"accuracy": 0.7, "v7_m59": 1.0, "v0_m0": 2.0})
        last = recorded(subject)[0]
        assert (last["accuracy"], last["v0_m0"], len(last)) == (0.7, 2.0, MOST_NAMES)

    simulate(tmp_path, scene)
