"""SSD on real images through the real daemons: one digest for every placement and a killed coordinator; probes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(10)]
METHOD = {
    "preset": "official",
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small"},
    "views": "digits",
    "local_epochs": 1,
    "batch_size": 32,
    "lr": 0.05,
}


def run(root: Path, partition: Path, workers: int, *, kills: int = 0) -> tuple[list[str], dict[str, float]]:
    root.mkdir()
    luck = random.Random(2)
    settings = {
        "run.clients": CLIENTS,
        "run.rounds": 4,
        "method.name": "ssd",
        "method.config": METHOD,
        "evaluation.every": 2,
        "evaluation.workers": ["worker-0"],
    }
    with Federation(root, **settings) as federation:
        federation.start_coordinator()
        for index in range(workers):
            federation.start_worker(
                f"worker-{index}",
                CLIENTS[index::workers],
                config={"data.kind": "digits", "data.partition": partition, "data.evaluates": index == 0},
            )
        federation.until(lambda: federation.status().version.number >= 1, "a round of SSD", patience=180)
        for _ in range(kills):
            time.sleep(luck.uniform(0.0, 0.4))
            assert federation.coordinator.running, "the run was over before the kill"
            federation.coordinator.kill()
            federation.start_coordinator()
        assert federation.finish() == 0
        store = federation.store()
        try:
            version, values = store.evaluations()[-1]
            newest = store.versions()[-1]
        finally:
            store.close()
        assert version == 4
        assert newest.figures.statistics["loss"] != 0
        return federation.digests(), dict(values)


def test_ssd_learns_the_same_model_wherever_its_clients_live_and_whoever_dies(tmp_path: Path) -> None:
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    partition = tmp_path / "partition.json"
    save(dirichlet(digits.train.labels.tolist(), 10, 0.1, 1, dataset="digits"), partition)
    reference, values = run(tmp_path / "one", partition, 1)
    assert len(set(reference)) == 5
    assert 0.5 < values["linear_probe_all"] <= 1.0
    assert 0 < values["uniformity_global"] < 4
    again, same_values = run(tmp_path / "two", partition, 2, kills=2)
    assert again == reference
    assert same_values["linear_probe_all"] == pytest.approx(values["linear_probe_all"], abs=0.02)
