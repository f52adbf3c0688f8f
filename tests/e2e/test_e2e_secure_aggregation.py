"""Secure aggregation through real daemons: the model of a plain run, whoever hosts, whoever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation import ROOT, Federation

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index}" for index in range(6)]
STEPPED = ROOT / "tests" / "support" / "stepped.py"
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


@pytest.mark.parametrize("workers", [2, 3])
def test_masked_rounds_give_the_model_of_plain_ones(tmp_path: Path, plain: list[str], workers: int) -> None:
    with Federation(tmp_path, **masked()) as federation:
        start(federation, workers)
        assert federation.finish() == 0
        assert federation.digests() == plain
        assert len(list((federation.state_dir / "transcripts").iterdir())) == ROUNDS
        assert not list((federation.state_dir / "masked").iterdir())
