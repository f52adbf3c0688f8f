"""Secure aggregation through real daemons: the model of a plain run, whoever hosts, whoever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processes.federation import ROOT, Federation

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index}" for index in range(6)]
STEPPED = ROOT / "tests" / "support" / "training" / "stepped.py"
ROUNDS = 3


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "run.clients": CLIENTS,
        "run.rounds": ROUNDS,
        "round.cohort_size": 6,
        "wire.update_encoding": "float32",
        "limits.max_client_weight": 64,
        "method.name": STEPPED,
        "method.config": {"parameters": 5000, "train_seconds": 0.05},
        **changes,
    }


def masked(**changes: Any) -> dict[str, Any]:
    return settings(
        **{
            "secure_aggregation.level": "passive",
            "secure_aggregation.assumed_corrupt": 0.0,
            "secure_aggregation.tolerated_dropout": 0.34,
            **changes,
        }
    )


def start(federation: Federation, workers: int) -> None:
    federation.start_coordinator()
    for index in range(workers):
        start_worker(federation, index, workers)


def start_worker(federation: Federation, index: int, workers: int) -> None:
    config = {"methods.stepped": STEPPED, "secure_aggregation.level": "passive"}
    federation.start_worker(f"worker-{index}", CLIENTS[index::workers], config=config)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with Federation(tmp_path_factory.mktemp("plain"), **settings()) as federation:
        federation.start_coordinator()
        federation.start_worker("worker-0", CLIENTS, config={"methods.stepped": STEPPED})
        assert federation.finish() == 0
        digests = federation.digests()
    assert len(set(digests)) == ROUNDS + 1
    return digests


def test_masked_rounds_of_two_workers_give_the_model_of_plain_ones(tmp_path: Path, plain: list[str]) -> None:
    with Federation(tmp_path, **masked()) as federation:
        start(federation, 2)
        assert federation.finish() == 0
        assert federation.digests() == plain
        assert len(list((federation.state_dir / "transcripts").iterdir())) == ROUNDS
        assert not list((federation.state_dir / "masked").iterdir())


def test_three_workers_and_kills_change_no_bit(tmp_path: Path, plain: list[str]) -> None:
    """A worker in the middle of training, then the coordinator: keys are lost, finished training is not."""
    slower = {"method.config": {"parameters": 5000, "train_seconds": 0.3}, "run.when_done": "exit"}
    with Federation(tmp_path, **masked(**slower)) as federation:
        start(federation, 3)
        coordinator = federation.coordinator
        assert coordinator is not None
        federation.until(lambda: phases(federation, "uploading"), "keys are exchanged")
        federation.workers["worker-1"].kill()
        start_worker(federation, 1, 3)
        federation.until(lambda: coordinator.events("round_committed"), "a round commits")
        coordinator.kill()
        federation.start_coordinator()
        assert federation.finish() == 0
        assert federation.digests() == plain
        reasons = [event["reason"] for event in coordinator.events("round_abandoned")]
        assert any("unexpected_message" in reason for reason in reasons), reasons
        missing = federation.workers["worker-1"].events("secure_keys_missing")
        assert any("no keys of that round id" in event["detail"] for event in missing)


def test_a_worker_killed_in_training_costs_no_attempt_when_keys_are_late(
    tmp_path: Path, plain: list[str]
) -> None:
    changes = {
        "secure_aggregation.keys": "late",
        "method.config": {"parameters": 5000, "train_seconds": 0.5},
    }
    with Federation(tmp_path, **masked(**changes)) as federation:
        start(federation, 3)
        killed = federation.workers["worker-1"]
        federation.until(lambda: killed.events("task_received"), "its clients train")
        killed.kill()
        start_worker(federation, 1, 3)
        assert federation.finish() == 0
        assert federation.digests() == plain
        assert federation.coordinator is not None
        assert not federation.coordinator.events("round_abandoned")


def phases(federation: Federation, name: str) -> list[dict[str, Any]]:
    """When a phase of the key exchange began."""
    assert federation.coordinator is not None
    return [each for each in federation.coordinator.events("secure_phase") if each["phase"] == name]


def test_an_elastic_round_does_without_a_worker_that_is_gone(tmp_path: Path) -> None:
    changes = {
        "run.mode": "elastic",
        "run.rounds": 1,
        "round.deadline_seconds": 12.0,
        "round.min_updates": 4,
        "method.config": {"parameters": 5000, "train_seconds": 0.2},
    }
    with Federation(tmp_path, **masked(**changes)) as federation:
        start(federation, 3)
        federation.until(lambda: phases(federation, "uploading"), "keys are exchanged")
        federation.workers["worker-1"].kill()
        assert federation.finish() == 0
        store = federation.store()
        try:
            (attempt,) = store.attempts()
            assert set(attempt.accepted) == set(CLIENTS[0::3]) | set(CLIENTS[2::3])
            assert store.versions()[-1].figures.statistics["clients"] == 4
        finally:
            store.close()
