"""Reproducible mode through real coordinator and worker processes: one digest, whoever hosts, whoever dies."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(10)]
ROUNDS = 6


def spread(workers: int) -> list[list[str]]:
    """The ten clients dealt to so many workers."""
    return [CLIENTS[index::workers] for index in range(workers)]


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "run.clients": CLIENTS,
        "run.rounds": ROUNDS,
        "method.config": {"parameters": 5000, "train_seconds": 0.02},
        **changes,
    }


def run(root: Path, workers: int, **changes: Any) -> list[str]:
    root.mkdir()
    with Federation(root, **settings(**changes)) as federation:
        federation.start_coordinator()
        for index, clients in enumerate(spread(workers)):
            federation.start_worker(f"worker-{index}", clients)
        assert federation.finish() == 0
        return federation.digests()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    digests = run(tmp_path_factory.mktemp("reference") / "one", 1)
    assert len(set(digests)) == ROUNDS + 1
    return digests


@pytest.mark.parametrize("workers", [5, 10])
def test_who_hosts_which_client_changes_no_bit(tmp_path: Path, reference: list[str], workers: int) -> None:
    assert run(tmp_path / "many", workers) == reference


def test_a_worker_killed_and_restarted_in_mid_round_changes_no_bit(
    tmp_path: Path, reference: list[str]
) -> None:
    luck = random.Random(11)
    # Slower training (part of no digest), so that kills fall into the middle of it.
    slower = {"method.config": {"parameters": 5000, "train_seconds": 0.15}}
    with Federation(tmp_path, **settings(**slower)) as federation:
        coordinator = federation.start_coordinator()
        groups = spread(3)
        for index, clients in enumerate(groups):
            federation.start_worker(f"worker-{index}", clients)
        federation.until(lambda: len(coordinator.events("worker_attached")) == 3, "three workers attached")
        kills = 0
        while coordinator.running and kills < 5:
            victim = luck.randrange(3)
            time.sleep(luck.uniform(0.0, 0.6))
            federation.workers[f"worker-{victim}"].kill()
            federation.start_worker(f"worker-{victim}", groups[victim])
            kills += 1
        assert federation.finish() == 0
        assert kills >= 3, "the run was over before anything was killed"
        assert federation.digests() == reference


def test_the_coordinator_killed_twenty_times_changes_no_bit(tmp_path: Path) -> None:
    luck = random.Random(7)
    rounds = 30
    changes = {"run.rounds": rounds, "method.config": {"parameters": 5000, "train_seconds": 0.05}}
    undisturbed = run(tmp_path / "undisturbed", 2, **changes)
    root = tmp_path / "killed"
    root.mkdir()
    with Federation(root, **settings(**changes)) as federation:
        federation.start_coordinator()
        for index, clients in enumerate(spread(2)):
            federation.start_worker(f"worker-{index}", clients)
        kills = 0
        while kills < 20 and federation.coordinator.running:
            time.sleep(luck.uniform(0.0, 1.2))
            if not federation.coordinator.running:
                break
            federation.coordinator.kill()
            kills += 1
            federation.start_coordinator(wait=kills % 3 != 0)
        assert federation.finish() == 0
        assert kills == 20, f"the run was over after {kills} kills: give it more rounds"
        assert federation.digests() == undisturbed
