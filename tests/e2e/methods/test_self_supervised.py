"""The self-supervised methods through the real daemons: their server hooks, their state, one digest for every placement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import iid, save

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(4)]
SMALL = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 16, "width": 8},
    "views": "digits",
    "local_epochs": 1,
    "batch_size": 64,
    "lr": 0.05,
}


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    path = tmp_path_factory.mktemp("partition") / "partition.json"
    labels = digits.train.labels.tolist()
    save(iid(len(labels), len(CLIENTS), 1, labels=labels, dataset="digits"), path)
    return path


def run(
    root: Path, partition: Path, method: str, workers: int, **config: Any
) -> tuple[list[str], dict[str, float]]:
    """The digests of all versions and the statistics of the last."""
    root.mkdir()
    settings = {
        "run.clients": CLIENTS,
        "run.rounds": 2,
        "round.cohort_size": len(CLIENTS),
        "method.name": method,
        "method.config": {**SMALL, **config},
    }
    with Federation(root, **settings) as federation:
        federation.start_coordinator()
        for index in range(workers):
            federation.start_worker(
                f"worker-{index}",
                CLIENTS[index::workers],
                config={"data.kind": "digits", "data.partition": partition},
            )
        assert federation.finish() == 0
        store = federation.store()
        try:
            statistics = dict(store.versions()[-1].figures.statistics)
        finally:
            store.close()
        return federation.digests(), statistics


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, partition: Path) -> list[str]:
    return run(tmp_path_factory.mktemp("base") / "run", partition, "fed_align_uniform", 1)[0]


def test_a_server_hook_on_individual_updates_gives_one_result_for_every_placement(
    tmp_path: Path, partition: Path, base: list[str]
) -> None:
    digests, statistics = run(tmp_path / "one", partition, "ldawa", 1)
    assert 0.0 < statistics["angular_least"] <= statistics["angular_mean"] <= 1.0
    assert digests[0] == base[0]
    assert digests[1] != base[1]
    again, same = run(tmp_path / "two", partition, "ldawa", 2)
    assert again == digests
    assert all(same[name] == statistics[name] for name in ("angular_least", "angular_mean", "loss"))


def test_both_halves_of_fedu2_reach_the_version(tmp_path: Path, partition: Path, base: list[str]) -> None:
    digests, statistics = run(tmp_path / "run", partition, "fedu2", 2)
    assert 0.0 < statistics["eua_agreement"] <= 1.0
    assert statistics["fur"] > 0.0
    assert digests[0] == base[0]
    assert digests[1] != base[1]


def test_a_client_alone_keeps_its_model_from_round_to_round(
    tmp_path: Path, partition: Path, base: list[str]
) -> None:
    """The first visit is the base method's; from the second on nobody starts from the average any more."""
    digests, _ = run(tmp_path / "run", partition, "local_only_ssl", 2)
    assert digests[:2] == base[:2]
    assert digests[2] != base[2]


def test_a_predictor_and_terms_of_the_client_objective_travel(tmp_path: Path, partition: Path) -> None:
    _, statistics = run(tmp_path / "run", partition, "fedx", 1)
    assert statistics["relation_local"] > 0.0
    assert statistics["relation_global"] > 0.0
