"""FedGen in real processes: one generator wherever clients live and whoever dies, and only what was declared travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save
from ssd.methods.fedgen.method import LABEL_PRIOR, SEEN
from ssd.methods.fedgen.server import FIRST, SECOND, STEPS
from ssd.models.generator import GENERATOR, GeneratorConfig, spec_of
from training.small_fedgen import CONFIG

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(8)]


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "partition.json"
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    save(dirichlet(digits.train.labels.tolist(), 8, 0.1, 1, dataset="digits"), path)
    return path


def settings(**config: Any) -> dict[str, Any]:
    return {
        "run.clients": CLIENTS,
        "run.rounds": 4,
        "round.cohort_size": 5,
        "method.name": "fedgen",
        "method.config": {**CONFIG, "lr_lag": True, "batches": "stream", **config},
    }


def history(federation: Federation) -> list[tuple[Any, ...]]:
    """Model, generator, moments and artefacts by version, as the journal names their contents."""
    store = federation.store()
    try:
        return [
            (
                each.model_digest,
                {name: blob.digest for name, blob in each.server_state.items()},
                {made.name: made.blob.digest for made in each.artefacts},
                each.figures.statistics.get("generator_teacher_loss"),
            )
            for each in store.versions()
        ]
    finally:
        store.close()


def start_workers(federation: Federation, partition: Path, workers: int) -> None:
    for index in range(workers):
        data = {"data.kind": "digits", "data.partition": partition}
        federation.start_worker(f"worker-{index}", CLIENTS[index::workers], config=data)


def finished(root: Path, partition: Path, workers: int, **config: Any) -> list[tuple[Any, ...]]:
    with Federation(root, **settings(**config)) as federation:
        federation.start_coordinator()
        start_workers(federation, partition, workers)
        assert federation.finish() == 0
        return history(federation)


@pytest.mark.parametrize("teacher", ["averaged_head", "individual_heads"])
def test_generator_moments_and_model_are_the_same_wherever_clients_live_and_when_the_coordinator_dies(
    tmp_path: Path, partition: Path, teacher: str
) -> None:
    (tmp_path / "straight").mkdir()
    (tmp_path / "killed").mkdir()
    reference = finished(tmp_path / "straight", partition, 1, teacher=teacher)
    assert len({model for model, *_ in reference}) == 5
    with Federation(tmp_path / "killed", **settings(teacher=teacher)) as federation:
        # In round 2 after the generator was trained, in round 4 before: then with moments from disk.
        first = federation.start_coordinator(
            fault=["coordinator.method_host.client:SubprocessMethodHost.after_reduce", "after", "2"]
        )
        start_workers(federation, partition, 2)
        federation.until(lambda: not first.running, "the coordinator dies in round 2")
        second = federation.start_coordinator(
            fault=["coordinator.method_host.client:SubprocessMethodHost.after_reduce", "before", "3"]
        )
        federation.until(lambda: not second.running, "the coordinator dies in round 4")
        federation.start_coordinator()
        assert federation.finish() == 0
        assert history(federation) == reference


def test_every_version_but_the_first_has_a_generator_of_its_own(tmp_path: Path, partition: Path) -> None:
    first, *later = finished(tmp_path, partition, 1)
    assert first[1:] == ({}, {}, None)
    for _, state, artefacts, loss in later:
        assert {f"hook.{name}" for name in (GENERATOR, FIRST, SECOND, STEPS, SEEN)} <= set(state)
        assert set(artefacts) == {GENERATOR, LABEL_PRIOR}
        assert loss > 0
    assert len({artefacts[GENERATOR] for _, _, artefacts, _ in later}) == 4


def test_with_head_sharing_only_heads_travel_up_and_no_generator_down_in_round_1(
    tmp_path: Path, partition: Path
) -> None:
    wide = {"noise_dim": 4, "hidden_dim": 128}  # (more bytes than the declaration, which travels in round 1)
    size = spec_of(GeneratorConfig(**wide), classes=10, latent_dim=12).size
    config = {"share": "head", "teacher": "individual_heads", "generator": wide}
    with Federation(tmp_path, **settings(**config)) as federation:
        federation.start_coordinator()
        start_workers(federation, partition, 1)
        assert federation.finish() == 0
        store = federation.store()
        try:
            statistics = [version.figures.statistics for version in store.versions()][1:]
        finally:
            store.close()
    down = [each["bytes_down"] for each in statistics]
    assert down[0] < 4 * size <= min(down[1:])
    # Five clients: a head of 130 values in half precision, ten label counts and six sums, and a little around it.
    for each in statistics:
        assert each["bytes_up"] < 5 * (2 * 130 + 8 * 16 + 400)
