"""Who measures versions, over real TLS: whoever claims to, says nothing, talks without end, or borrows a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from ssd.trust.names import Role
from ssd_proto.v1 import federation_pb2 as pb
from wire.raw_worker import RawWorker

pytestmark = pytest.mark.e2e
CLIENTS = ["client-000", "client-001"]
SETTINGS: dict[str, Any] = {
    "run.clients": CLIENTS,
    "run.rounds": 1,
    "round.cohort_size": 2,
    "limits.heartbeat_seconds": 0.3,
    "evaluation.every": 1,
    "evaluation.answer_seconds": 1.5,
    "method.config": {"parameters": 2000},
}
CLAIM = pb.Capabilities(evaluates=True)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator()
        yield federation


def evaluator(federation: Federation, name: str, role: Role = Role.EVALUATOR) -> RawWorker:
    return federation.raw_worker(name, [], role=role).attend(capabilities=CLAIM)


def answered(worker: RawWorker, version: int, values: dict[str, float]) -> None:
    done = pb.EvaluationDone(version=version, values=values)
    worker.up.put(pb.WorkerMessage(evaluation_done=done))


def trained(federation: Federation) -> RawWorker:
    """An honest worker, and the one round of the run."""
    honest = federation.raw_worker("honest", CLIENTS)
    honest.attend().learn()
    honest.contribute(honest.expect("train"))
    federation.until(lambda: federation.status().version.number == 1, "the round commits")
    return honest


def recorded(federation: Federation) -> dict[int, dict[str, float]]:
    store = federation.store()
    try:
        return {version: dict(values) for version, values in store.evaluations()}
    finally:
        store.close()


def test_a_plain_workers_claim_measures_nothing_and_holds_nothing_up(federation: Federation) -> None:
    """`aaa` sorts first; it would have been the only one asked, and silent for as long as it liked."""
    with (
        evaluator(federation, "aaa", Role.WORKER) as mallory,
        evaluator(federation, "zoe") as zoe,
        trained(federation),
    ):
        for version in (0, 1):
            order = zoe.expect("evaluate")
            assert order.version.number == version
            answered(mallory, version, {"accuracy": 1.0})
            answered(zoe, version, {"accuracy": 0.5})
        assert federation.finish() == 0
        assert recorded(federation) == {0: {"accuracy": 0.5}, 1: {"accuracy": 0.5}}
        assert federation.coordinator is not None
        assert federation.coordinator.events("evaluator_not_named")[0]["worker"] == "aaa"
        while not mallory.down.empty():
            message = mallory.down.get()
            assert message is None or message.WhichOneof("kind") != "evaluate"


def test_one_that_never_answers_is_given_up_and_the_run_ends(federation: Federation) -> None:
    with evaluator(federation, "aaa") as silent, trained(federation):
        silent.expect("evaluate")
        assert federation.finish() == 0
        assert recorded(federation) == {}


def test_fifty_thousand_invented_measures_are_none_and_the_next_is_asked(federation: Federation) -> None:
    with (
        evaluator(federation, "aaa") as talkative,
        evaluator(federation, "bbb") as quiet,
        trained(federation),
    ):
        for version in (0, 1):
            if version == 0:
                talkative.expect("evaluate")
                answered(talkative, version, {f"invented_{index}": 1.0 for index in range(50_000)})
            assert quiet.expect("evaluate").version.number == version
            answered(quiet, version, {"accuracy": 0.5})
        assert federation.finish() == 0
        assert recorded(federation) == {0: {"accuracy": 0.5}, 1: {"accuracy": 0.5}}


def test_an_evaluator_that_is_called_like_a_worker_does_not_take_its_place(federation: Federation) -> None:
    with federation.raw_worker("site", CLIENTS) as worker:
        worker.attend().learn()
        task = worker.expect("train")
        with evaluator(federation, "site") as namesake:
            assert namesake.welcome is not None
            answered(namesake, namesake.expect("evaluate").version.number, {"accuracy": 0.5})
            assert {each.worker: each.clients for each in federation.status().workers} == {
                "site": 2,
                "evaluator/site": 0,
            }
            worker.contribute(task)
            federation.until(lambda: federation.status().version.number == 1, "the round commits")
            answered(namesake, namesake.expect("evaluate").version.number, {"accuracy": 0.5})
            assert federation.finish() == 0
