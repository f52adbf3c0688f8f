"""Measuring clients, with the real driver and stores: who is asked, when it is over, what is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.composition import compose
from coordinator.config.derived import plan_of, policy_of, settings_of
from coordinator.config.sections import CoordinatorConfig
from coordinator.core.strategies.registry import Rates, create
from coordinator.errors import ClientFault, Reason
from coordinator.identity.revocations import NobodyRevoked
from coordinator.method_host.client import SubprocessMethodHost
from coordinator.parts import Coordinator, Given
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.rounds.restore import restore
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.files.staging import BudgetedStaging
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import NoTracing
from coordinator.versions.next_version import VersionMaker
from coordinator.workers.sessions import Session
from rounds.driver_harness import ManualClock
from ssd.digest import canonical_json
from ssd.method.registry import load
from ssd.updates.codec import Encoding
from ssd.updates.spec import model_digest
from ssd_wire.messages import Capabilities, Evaluate, EvaluationDone, Hello, Train

CLIENTS = ("a", "b", "c")
TESTED = Capabilities(client_tests=True, labels=True)


def hello(worker: str, clients: str, capabilities: Capabilities) -> Hello:
    return Hello(worker=worker, instance=worker[0] * 32 if worker[0] in "abcdef" else "0" * 32,
                 clients=dict.fromkeys(clients, 0), capabilities=capabilities)  # fmt: skip


def driver(tmp_path: Path, clock: ManualClock, **changes: Any) -> Coordinator:
    """A run of three named clients; `changes` are fields of the declaration."""
    options = {"parameters": 64, "client_evaluation": True}
    config = CoordinatorConfig.model_validate(
        {
            "coordinator": {"state_dir": tmp_path},
            "transport": {"insecure": True},
            "run": {"mode": "reproducible", "rounds": 2, "clients": CLIENTS},
            "round": {"cohort_size": 3},
            "limits": {"min_free_bytes": 0, "heartbeat_seconds": 0.05},
            "evaluation": {"every": 1, "wait_seconds": 60.0},
            "method": {"name": "synthetic", "config": options},
        }
    )
    blobs, store = FileBlobs(tmp_path), SqliteJournal(tmp_path)
    method = load("synthetic", options)
    declaration = replace(method.declare(), **changes)
    vector = method.initial(0, None)

    def blob(content: bytes) -> Any:
        writer = blobs.create()
        writer.write(content)
        return writer.finish()

    run = RunRecord(
        run_id="run",
        created_at=0.0,
        config=config.run_config(),
        declaration=declaration.to_json(),
        declaration_blob=blob(canonical_json(declaration.to_json())),
        declaration_digest=declaration.digest,
    )
    store.register_clients(CLIENTS, 0.0)
    zero = VersionRecord(
        number=0, model_digest=model_digest(declaration.spec, vector), full=blob(vector.tobytes()), delta=None
    )
    store.create_run(run, zero)
    strategy = create("average", Rates())
    return compose(
        Given(
            record=run,
            declaration=declaration,
            plan=plan_of(declaration, config),
            maker=VersionMaker(declaration, strategy, Encoding.FLOAT16, blobs),
            state=restore(policy_of(config, declaration), store, clock, proven=False),
            settings=settings_of(config),
            journal=store,
            blobs=blobs,
            staging=BudgetedStaging(tmp_path / "staging", 1 << 20, 1 << 20),
            host=SubprocessMethodHost(),
            state_dir=tmp_path,
            clock=clock,
            revocations=NobodyRevoked(),
            metrics=CoordinatorMetrics(),
            tracing=NoTracing(),
        )
    )


def simulate(
    tmp_path: Path, scene: Callable[[Coordinator, ManualClock], Awaitable[None]], **changes: Any
) -> None:
    async def play() -> None:
        clock = ManualClock()
        subject = driver(tmp_path, clock, **changes)
        loop = asyncio.ensure_future(subject.driver.run())
        try:
            await scene(subject, clock)
        finally:
            subject.driver.stop()
            await loop

    asyncio.run(asyncio.wait_for(play(), 60))


async def settle() -> None:
    await asyncio.sleep(0.2)


def asked(session: Session) -> list[tuple[int, tuple[str, ...]]]:
    orders = [each for each in session.outbox._queue if isinstance(each, Evaluate)]  # type: ignore[attr-defined]
    return [(order.version.number, tuple(each.client for each in order.clients)) for order in orders]


def answer(clients: str, version: int = 0, **changes: Any) -> EvaluationDone:
    """Every client got 3 of 4 images right."""
    count = len(clients)
    sums = {
        "clients": count, "correct": 3 * count, "images": 4 * count, "clients_with_accuracy": count,
        "accuracy_sum": 0.75 * count, "accuracy_squares": 0.5625 * count,
    }  # fmt: skip
    values = {name: float(value) for name, value in sums.items()} if clients else {}
    return EvaluationDone(
        **{"version": version, "values": values, "error": "", "clients": tuple(clients), **changes}
    )


def recorded(subject: Coordinator) -> dict[int, Mapping[str, float]]:
    return dict(subject.reports.journal.evaluations())


def test_every_worker_is_asked_for_its_clients_before_it_gets_a_task_and_the_answers_are_added_up(
    tmp_path: Path,
) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        first = await subject.attendance.attach(hello("w1", "ab", TESTED))
        kinds = [type(each) for each in first.outbox._queue]  # type: ignore[attr-defined]
        assert kinds.index(Evaluate) < kinds.index(Train)
        second = await subject.attendance.attach(hello("w2", "c", TESTED))
        assert asked(first) == [(0, ("a", "b"))]
        assert asked(second) == [(0, ("c",))]
        await subject.attendance.evaluation_done(first, answer("ab"))
        assert recorded(subject) == {}, "the other worker's answer is missing"
        half = answer("c", values={"clients": 1.0, "correct": 0.0, "images": 12.0,
                                   "clients_with_accuracy": 1.0, "accuracy_sum": 0.0, "accuracy_squares": 0.0})  # fmt: skip
        await subject.attendance.evaluation_done(second, half)
        values = recorded(subject)[0]
        assert values == pytest.approx(
            {
                "personalised_clients": 3,
                "personalised_accuracy": 0.5,
                "personalised_accuracy_std": (0.375 - 0.25) ** 0.5,
                "pooled_client_accuracy": 6 / 20,
            }
        )
        gauge = subject.given.metrics.registry.get_sample_value
        assert gauge("ssd_coordinator_evaluation", {"measure": "personalised_accuracy"}) == 0.5

    simulate(tmp_path, scene)


def test_probe_and_clients_of_one_version_share_a_record_in_either_order(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        evaluator = await subject.attendance.attach(hello("e", "", Capabilities(evaluates=True)))
        assert asked(evaluator) == [(0, ())]
        probe = EvaluationDone(version=0, values={"knn_all": 0.5, "personalised_accuracy": 1.0}, error="")
        await subject.attendance.evaluation_done(evaluator, probe)
        assert recorded(subject) == {0: {"knn_all": 0.5}}, "an evaluator cannot speak for the clients"
        await subject.attendance.evaluation_done(worker, answer("abc"))
        assert recorded(subject)[0]["knn_all"] == 0.5
        assert recorded(subject)[0]["personalised_accuracy"] == 0.75

    simulate(tmp_path, scene)


@pytest.mark.parametrize("clients_first", [True, False])
def test_a_version_is_measured_when_the_probe_and_the_clients_both_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clients_first: bool
) -> None:
    """Whoever takes a run's last numbers away waits for this: either may be the slower one."""
    caplog.set_level("INFO")

    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        evaluator = await subject.attendance.attach(hello("e", "", Capabilities(evaluates=True)))
        answers = [
            (worker, answer("abc")),
            (evaluator, EvaluationDone(version=0, values={}, error="the images are gone")),
        ]
        for session, done in answers if clients_first else reversed(answers):
            assert "measured" not in caplog.messages
            await subject.attendance.evaluation_done(session, done)
        assert caplog.messages.count("measured") == 1

    simulate(tmp_path, scene)


def test_a_version_no_client_can_be_measured_for_is_measured_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        evaluator = await subject.attendance.attach(hello("e", "", Capabilities(evaluates=True)))
        probe = EvaluationDone(version=0, values={"knn_all": 0.5}, error="")
        await subject.attendance.evaluation_done(evaluator, probe)
        assert "measured" not in caplog.messages
        await subject.attendance.attach(hello("w1", "abc", Capabilities(labels=True)))
        await settle()
        assert caplog.messages.count("measured") == 1
        assert recorded(subject) == {0: {"knn_all": 0.5}}

    simulate(tmp_path, scene, needs_images=True)


def test_a_worker_that_comes_back_is_asked_again_and_one_that_stays_away_is_left_out(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, clock: ManualClock) -> None:
        first = await subject.attendance.attach(hello("w1", "ab", TESTED))
        second = await subject.attendance.attach(hello("w2", "c", TESTED))
        subject.attendance.detach(second)
        await subject.attendance.evaluation_done(first, answer("ab"))
        assert recorded(subject) == {}
        again = await subject.attendance.attach(hello("w2", "c", TESTED))
        assert asked(again) == [(0, ("c",))]
        subject.attendance.detach(again)
        await settle()
        clock.now += 59
        first.last_seen = clock.now
        await settle()
        assert recorded(subject) == {}
        clock.now += 2
        first.last_seen = clock.now
        await settle()
        assert recorded(subject)[0]["personalised_clients"] == 2
        # An answer after that changes nothing.
        late = await subject.attendance.attach(hello("w2", "c", TESTED))
        await subject.attendance.evaluation_done(late, answer("c"))
        assert recorded(subject)[0]["personalised_clients"] == 2

    simulate(tmp_path, scene)


@pytest.mark.parametrize(
    "bad",
    [
        {"error": "the training process died", "values": {}, "clients": ()},
        {"clients": ("a", "b", "c", "d")},
        {"clients": ("a", "a", "b")},
        {"values": {"clients": 3.0, "correct": 9.0}},
        {"values": {"clients": 3.0, "loss": float("nan")}},
    ],
)
def test_an_answer_that_cannot_be_is_asked_for_again_but_not_for_ever(
    tmp_path: Path, bad: dict[str, Any]
) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        for times in range(1, 4):
            assert asked(worker) == [(0, ("a", "b", "c"))] * times
            await subject.attendance.evaluation_done(worker, replace(answer("abc"), **bad))
        assert asked(worker) == [(0, ("a", "b", "c"))] * 3
        assert recorded(subject) == {}
        assert not subject.evaluations.outstanding

    simulate(tmp_path, scene)


def test_a_second_bad_answer_does_not_count_what_a_good_one_said_already(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        await subject.attendance.evaluation_done(worker, answer("abc"))
        await subject.attendance.evaluation_done(worker, answer("abc"))
        await subject.attendance.evaluation_done(worker, answer("abc", version=7))
        assert recorded(subject)[0]["personalised_clients"] == 3

    simulate(tmp_path, scene)


def test_clients_a_worker_could_not_measure_are_left_out_at_once(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        await subject.attendance.evaluation_done(worker, answer("ac"))
        assert recorded(subject)[0]["personalised_clients"] == 2
        assert not subject.evaluations.outstanding

    simulate(tmp_path, scene)


def test_a_worker_that_never_answers_is_given_up_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(subject: Coordinator, clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        clock.now += 3601
        worker.last_seen = clock.now
        await settle()
        assert "client_evaluation_failed" in caplog.messages
        await subject.attendance.evaluation_done(worker, answer("abc"))
        assert recorded(subject) == {}

    simulate(tmp_path, scene)


def test_a_revoked_client_is_not_waited_for(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "ab", TESTED))
        await subject.attendance.evaluation_done(worker, answer("ab"))
        assert recorded(subject) == {}
        await subject.ownership.revoke_client("c")
        await settle()
        assert recorded(subject)[0]["personalised_clients"] == 2

    simulate(tmp_path, scene)


def test_a_client_that_a_later_commit_included_is_not_measured_for_an_older_version(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        subject.reports.inclusions.last_rounds["b"] = 1
        worker = await subject.attendance.attach(
            Hello(
                worker="w1",
                instance="0" * 32,
                clients={"a": 0, "b": 1, "c": 0},
                run_id="run",
                capabilities=TESTED,
            )
        )
        assert asked(worker) == [(0, ("a", "c"))]

    simulate(tmp_path, scene)


def test_a_method_with_images_asks_only_workers_with_test_images(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        without = await subject.attendance.attach(hello("w1", "ab", Capabilities(labels=True)))
        assert asked(without) == []
        assert subject.evaluations.outstanding, "client c may have some"
        tested = await subject.attendance.attach(hello("w2", "c", TESTED))
        await subject.attendance.evaluation_done(tested, answer("c"))
        assert recorded(subject)[0]["personalised_clients"] == 1

    simulate(tmp_path, scene, needs_images=True)


def test_a_method_that_measures_no_clients_asks_for_none(tmp_path: Path) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        worker = await subject.attendance.attach(hello("w1", "abc", TESTED))
        assert asked(worker) == []
        await subject.attendance.evaluation_done(worker, answer("abc"))
        assert recorded(subject) == {}

    simulate(tmp_path, scene, client_evaluation=False)


def test_a_method_that_needs_labels_refuses_clients_without_but_not_an_evaluator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(subject: Coordinator, _clock: ManualClock) -> None:
        with pytest.raises(ClientFault, match="labels") as refused:
            await subject.attendance.attach(hello("w1", "ab", Capabilities(client_tests=True)))
        assert refused.value.reason is Reason.LABELS_NEEDED
        assert "labels_needed" in caplog.text
        evaluator = await subject.attendance.attach(hello("e", "", Capabilities(evaluates=True)))
        with pytest.raises(ClientFault):
            await subject.attendance.change_clients(evaluator, {"c": 0})
        await subject.attendance.attach(hello("w1", "ab", TESTED))

    simulate(tmp_path, scene, needs_labels=True)
