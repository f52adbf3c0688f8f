"""The driver with memory stores, in one process: races between streams, the loop and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.aggregation import VersionMaker
from coordinator.clock import SystemClock
from coordinator.config import CoordinatorConfig
from coordinator.core.registry import Claim
from coordinator.core.state import Phase
from coordinator.core.strategy import create
from coordinator.driver import Driver
from coordinator.errors import ClientFault, Reason
from coordinator.host_client import SubprocessMethodHost
from coordinator.messages import Capabilities, Envelope, Evaluate, Train
from coordinator.metrics import CoordinatorMetrics
from coordinator.ports import RunRecord, VersionRecord
from coordinator.runs import plan_of, restore, settings_of
from coordinator.sessions import Session
from coordinator.store.memory import MemoryStore
from coordinator.store.memory_blobs import MemoryBlobs
from coordinator.store.staging import BudgetedStaging
from coordinator.uploads import Upload
from ssd.codec import Encoding
from ssd.declaration import Declaration
from ssd.digest import canonical_json
from ssd.folding import FoldPlan
from ssd.methods.registry import load
from ssd.spec import model_digest


class _Checked(Upload):
    """An upload whose content is not looked at."""

    def check(self, plan: FoldPlan) -> None:
        pass


CLAIM = Claim(worker="w", instance="0" * 32, clients={"a": 0, "b": 0})
EVALUATOR = Capabilities(evaluates=True)


def driver(tmp_path: Path, store: MemoryStore | None = None, **evaluation: int) -> Driver:
    config = CoordinatorConfig.model_validate(
        {
            "coordinator": {"state_dir": tmp_path},
            "transport": {"insecure": True},
            "run": {"mode": "reproducible", "rounds": 2, "clients": ("a", "b")},
            "round": {"cohort_size": 2},
            "limits": {"min_free_bytes": 0},
            "evaluation": evaluation or {"every": 0},
            "method": {"name": "synthetic", "config": {"parameters": 64}},
        }
    )
    blobs, clock = MemoryBlobs(), SystemClock()
    method = load("synthetic", {"parameters": 64})
    declaration = method.declare()
    vector = method.initial(0, None)

    def blob(content: bytes):
        writer = blobs.create()
        writer.write(content)
        return writer.finish()

    store = store or MemoryStore()
    if store.current_run() is None:
        run = RunRecord(
            run_id="run",
            created_at=0.0,
            config=config.run_config(),
            declaration=declaration.to_json(),
            declaration_blob=blob(canonical_json(declaration.to_json())),
            declaration_digest=declaration.digest,
        )
        store.register_clients(["a", "b"], 0.0)
        store.create_run(
            run,
            VersionRecord(
                number=0,
                model_digest=model_digest(declaration.spec, vector),
                full=blob(vector.tobytes()),
                delta=None,
            ),
        )
    run = store.current_run()
    assert run is not None
    declaration = Declaration.from_json(run.declaration)
    settings = settings_of(config)
    return Driver(
        run=run,
        declaration=declaration,
        plan=plan_of(declaration, config),
        maker=VersionMaker(
            declaration, create("average", learning_rate=1.0, momentum=0.0), Encoding.FLOAT16, blobs
        ),
        state=restore(config, declaration, store, clock),
        settings=settings,
        store=store,
        blobs=blobs,
        staging=BudgetedStaging(tmp_path / "staging", 1 << 20, 1 << 20),
        host=SubprocessMethodHost(),
        state_dir=tmp_path,
        clock=clock,
        metrics=CoordinatorMetrics(),
    )


def simulate(scene: Callable[[Driver], Awaitable[None]], subject: Driver | Callable[[], Driver]) -> None:
    async def play() -> None:
        # Queues belong to the loop they are used in, so the driver is made inside it.
        each = subject() if callable(subject) else subject
        loop = asyncio.ensure_future(each.run())
        try:
            await scene(each)
        finally:
            each.stop()
            await loop

    asyncio.run(asyncio.wait_for(play(), 60))


async def settle() -> None:
    await asyncio.sleep(0.05)


def messages(session: Session, kind: type) -> list:
    return [each for each in session.outbox._queue if isinstance(each, kind)]  # type: ignore[attr-defined]


async def occupied(subject: Driver) -> asyncio.Event:
    """The loop is busy (as with a commit) until the event is set."""
    gate = asyncio.Event()

    async def busy() -> None:
        await gate.wait()

    subject._inbox.put(busy)
    await settle()
    return gate


@pytest.mark.parametrize("how", ["the old stream ends", "the old stream was silent"])
def test_a_worker_that_redialled_during_a_commit_keeps_its_clients(tmp_path: Path, how: str) -> None:
    async def scene(subject: Driver) -> None:
        old = await subject.attendance.attach(CLAIM, (1, 1), Capabilities())
        gate = await occupied(subject)
        attaching = asyncio.ensure_future(subject.attendance.attach(CLAIM, (1, 1), Capabilities()))
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
        assert dict(subject.state.hosts) == {"a": "w", "b": "w"}
        assert messages(new, Train)

    simulate(scene, lambda: driver(tmp_path))


def test_an_evaluator_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    async def scene(subject: Driver) -> None:
        old = await subject.attendance.attach(CLAIM, (1, 1), EVALUATOR)
        assert messages(old, Evaluate)
        new = await subject.attendance.attach(CLAIM, (1, 1), EVALUATOR)
        assert not old.open
        assert messages(new, Evaluate)

    simulate(scene, lambda: driver(tmp_path, every=1))


def test_a_defect_in_a_command_ends_the_loop_and_frees_its_session(tmp_path: Path) -> None:
    async def play() -> None:
        subject = driver(tmp_path)
        loop = asyncio.ensure_future(subject.run())
        await settle()

        def broken(*_: object) -> None:
            raise RuntimeError("a defect")

        subject._store.open_attempt = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="a defect"):
            await subject.attendance.attach(CLAIM, (1, 1), Capabilities())
        with pytest.raises(RuntimeError, match="a defect"):
            await loop
        assert len(subject.sessions) == 0
        assert not subject.ready

    asyncio.run(asyncio.wait_for(play(), 60))


def test_waiting_after_an_abandoned_attempt_does_not_spin(tmp_path: Path) -> None:
    async def scene(subject: Driver) -> None:
        subject._state = replace(subject._state, retry_at=subject._clock.monotonic() - 1)
        turns = 0
        publish = subject._publish

        def counted() -> None:
            nonlocal turns
            turns += 1
            publish()

        subject._publish = counted  # type: ignore[method-assign]
        gate = await occupied(subject)
        gate.set()
        await asyncio.sleep(0.3)
        assert turns < 10, "the loop spins"

    simulate(scene, lambda: driver(tmp_path))


def test_a_stop_while_an_upload_is_folded_ends_cleanly(tmp_path: Path) -> None:
    async def scene(subject: Driver) -> None:
        session = await subject.attendance.attach(CLAIM, (1, 1), Capabilities())
        envelope = Envelope(
            run_id="run",
            round=1,
            attempt=1,
            base_digest="",
            spec_digest="",
            task_digest="",
            fold=False,
            clients={"a": 1},
            training_seconds={},
            body_size=0,
            chunk_digests=(),
            digest="x",
        )
        body = subject.staging.open(0)
        assert body is not None
        upload = _Checked(envelope=envelope, worker="w", body=body)
        subject._fold.add_update = lambda *_: time.sleep(0.2)  # type: ignore[method-assign]
        judging = asyncio.ensure_future(subject.judge(session, upload))
        await settle()
        subject.stop()
        verdict = await judging
        assert verdict.reason in ("draining", "")

    simulate(scene, lambda: driver(tmp_path))


def test_an_update_that_arrives_while_the_commit_settles_is_late_not_bad(tmp_path: Path) -> None:
    async def scene(subject: Driver) -> None:
        session = await subject.attendance.attach(CLAIM, (1, 1), Capabilities())
        zero = subject.catalogue.newest
        (task,) = messages(session, Train)
        # The next version is durable and served, but the state machine has not been told yet.
        subject._state = replace(subject._state, phase=Phase.COMMITTING)
        subject.catalogue.add(replace(zero, number=1, model_digest="f" * 64, round=1, attempt=1))
        envelope = Envelope(
            run_id="run",
            round=1,
            attempt=1,
            base_digest=zero.model_digest,
            spec_digest=subject.declaration.spec.digest,
            task_digest=task.task_digest,
            fold=False,
            clients={"a": 1},
            training_seconds={},
            body_size=subject.plan.update_nbytes,
            chunk_digests=(b"0" * 32,),
            digest="x",
        )
        with pytest.raises(ClientFault) as refused:
            subject.let_in(session, envelope)
        assert refused.value.reason is Reason.TOO_LATE

    simulate(scene, lambda: driver(tmp_path))


def test_a_revoked_client_does_not_come_back_into_its_attempt_with_a_restart(tmp_path: Path) -> None:
    store = MemoryStore()

    async def first(subject: Driver) -> None:
        await subject.attendance.attach(CLAIM, (1, 1), Capabilities())
        await subject.revoke("b")
        assert subject.state.attempt is not None
        assert subject.state.attempt.cohort == ("a",)

    async def second(subject: Driver) -> None:
        assert subject.state.attempt is not None
        assert subject.state.attempt.cohort == ("a",)

    simulate(first, lambda: driver(tmp_path, store))
    # The blobs of the first are gone with it; nothing is served here, only restored.
    asyncio.run(_restored(second, tmp_path, store))


async def _restored(scene: Callable[[Driver], Awaitable[None]], tmp_path: Path, store: MemoryStore) -> None:
    await scene(driver(tmp_path, store))
