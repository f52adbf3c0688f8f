"""The driver, in one process: races between streams, the loop and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.core.state import Phase
from coordinator.errors import ClientFault, Reason
from coordinator.parts import Coordinator
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.uploads.in_flight import Upload
from rounds.driver_harness import driver, messages, settle, simulate
from ssd.updates.fold import FoldPlan
from ssd_wire.messages import Capabilities, Evaluate, Hello, Train
from ssd_wire.uploads import Envelope, UploadKind, WeightedClient


class _Checked(Upload):
    """An upload whose content is not looked at."""

    def check(self, plan: FoldPlan) -> None:
        pass


HELLO = Hello(worker="w", instance="0" * 32, clients={"a": 0, "b": 0})
EVALUATOR = Capabilities(evaluates=True)


async def occupied(subject: Coordinator) -> asyncio.Event:
    """The loop is busy (as with a commit) until the event is set."""
    gate = asyncio.Event()

    async def busy() -> None:
        await gate.wait()

    subject.mailbox.put(busy)
    await settle()
    return gate


@pytest.mark.parametrize("how", ["the old stream ends", "the old stream was silent"])
def test_a_worker_that_redialled_during_a_commit_keeps_its_clients(tmp_path: Path, how: str) -> None:
    async def scene(subject: Coordinator) -> None:
        old = await subject.attendance.attach(HELLO)
        gate = await occupied(subject)
        attaching = asyncio.ensure_future(subject.attendance.attach(HELLO))
        await settle()
        if how == "the old stream ends":
            subject.attendance.detach(old)
        else:
            old.last_seen -= 1000
            old.close(ClientFault(Reason.SILENT, "nothing was heard"))
            subject.attendance.detach(old)
        gate.set()
        new = await attaching
        await settle()
        assert new.open
        assert subject.sessions.worker("w") is new
        assert dict(subject.machine.state.hosts) == {"a": "w", "b": "w"}
        assert messages(new, Train)

    simulate(scene, lambda: driver(tmp_path))


def test_an_evaluator_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        old = await subject.attendance.attach(replace(HELLO, capabilities=EVALUATOR))
        assert messages(old, Evaluate)
        new = await subject.attendance.attach(replace(HELLO, capabilities=EVALUATOR))
        assert not old.open
        assert messages(new, Evaluate)

    simulate(scene, lambda: driver(tmp_path, every=1))


def test_a_defect_in_a_command_ends_the_loop_and_frees_its_session(tmp_path: Path) -> None:
    async def play() -> None:
        subject = driver(tmp_path)
        loop = asyncio.ensure_future(subject.driver.run())
        await settle()

        def broken(*_: object) -> None:
            raise RuntimeError("a defect")

        subject.given.journal.open_attempt = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="a defect"):
            await subject.attendance.attach(HELLO)
        with pytest.raises(RuntimeError, match="a defect"):
            await loop
        assert len(subject.sessions) == 0
        assert not subject.driver.ready

    asyncio.run(asyncio.wait_for(play(), 60))


def test_waiting_after_an_abandoned_attempt_does_not_spin(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        subject.machine._state = replace(subject.machine._state, retry_at=subject.given.clock.monotonic() - 1)
        turns = 0
        publish = subject.gauges.publish

        def counted() -> None:
            nonlocal turns
            turns += 1
            publish()

        subject.gauges.publish = counted  # type: ignore[method-assign]
        gate = await occupied(subject)
        gate.set()
        await asyncio.sleep(0.3)
        assert turns < 10, "the loop spins"

    simulate(scene, lambda: driver(tmp_path))


def test_a_stop_while_an_upload_is_folded_ends_cleanly(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        session = await subject.attendance.attach(HELLO)
        envelope = Envelope(
            run_id="run",
            round=1,
            attempt=1,
            base_digest="",
            spec_digest="",
            task_digest="",
            kind=UploadKind.UPDATE,
            clients=(WeightedClient(client="a", weight=1),),
            body_size=0,
            chunk_digests=(),
        )
        body = subject.given.staging.open(0)
        assert body is not None
        upload = _Checked(envelope=envelope, worker="w", body=body)
        subject.round_sum._fold.add_update = lambda *_: time.sleep(0.2)  # type: ignore[method-assign]
        judging = asyncio.ensure_future(subject.verification.judge(session, upload))
        await settle()
        subject.driver.stop()
        verdict = await judging
        assert verdict.reason in ("draining", "")

    simulate(scene, lambda: driver(tmp_path))


def test_an_update_that_arrives_while_the_commit_settles_is_late_not_bad(tmp_path: Path) -> None:
    async def scene(subject: Coordinator) -> None:
        session = await subject.attendance.attach(HELLO)
        zero = subject.catalogue.newest
        (task,) = messages(session, Train)
        # The next version is durable and served, but the state machine has not been told yet.
        subject.machine._state = replace(subject.machine._state, phase=Phase.COMMITTING)
        subject.catalogue.add(replace(zero, number=1, model_digest="f" * 64, round=1, attempt=1))
        envelope = Envelope(
            run_id="run",
            round=1,
            attempt=1,
            base_digest=zero.model_digest,
            spec_digest=subject.reports.facts.declaration.spec.digest,
            task_digest=task.task_digest,
            kind=UploadKind.UPDATE,
            clients=(WeightedClient(client="a", weight=1),),
            body_size=subject.quality.plain.update_nbytes,
            chunk_digests=(b"0" * 32,),
        )
        with pytest.raises(ClientFault) as refused:
            subject.uploads.let_in(session, envelope)
        assert refused.value.reason is Reason.TOO_LATE

    simulate(scene, lambda: driver(tmp_path))


def test_a_revoked_client_does_not_come_back_into_its_attempt_with_a_restart(tmp_path: Path) -> None:
    store = SqliteJournal(tmp_path)

    async def first(subject: Coordinator) -> None:
        await subject.attendance.attach(HELLO)
        await subject.ownership.revoke_client("b")
        assert subject.machine.state.attempt is not None
        assert subject.machine.state.attempt.cohort == ("a",)

    async def second(subject: Coordinator) -> None:
        assert subject.machine.state.attempt is not None
        assert subject.machine.state.attempt.cohort == ("a",)

    simulate(first, lambda: driver(tmp_path, store))
    asyncio.run(_restored(second, tmp_path, store))


async def _restored(
    scene: Callable[[Coordinator], Awaitable[None]], tmp_path: Path, store: SqliteJournal
) -> None:
    await scene(driver(tmp_path, store))


def test_who_is_missing_is_said_whenever_somebody_goes_and_comes(tmp_path: Path) -> None:
    """Where nobody was missing and nobody came or went, it is not computed again; gauges are read at a scrape."""

    async def scene(subject: Coordinator) -> None:
        def gauge(name: str) -> float | None:
            subject.given.metrics.render()
            return subject.given.metrics.registry.get_sample_value(f"ssd_coordinator_{name}")

        for _ in range(2):
            session = await subject.attendance.attach(HELLO)
            await settle()
            assert subject.machine.state.phase is Phase.TRAINING
            assert (gauge("waiting_for_clients"), gauge("connected_clients")) == (0, 2)
            subject.attendance.detach(session)
            await settle()
            assert (gauge("waiting_for_clients"), gauge("connected_clients")) == (2, 0)

    simulate(scene, lambda: driver(tmp_path))
