"""What a method learns from sums it learns from masked sums: representation quality, generators, reduced statistics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save
from training.small_fedgen import CONFIG

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(6)]
SSD: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small"},
    "views": "digits",
    "local_epochs": 1,
    "batch_size": 32,
    "lr": 0.05,
    "quality": {"features": ["h"], "images": 150, "min_images": 64},
}
MASKED = {
    "secure_aggregation.level": "passive",
    "secure_aggregation.ring_bits": 32,
    "secure_aggregation.assumed_corrupt": 0.0,
    "secure_aggregation.tolerated_dropout": 0.0,
}


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "partition.json"
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    save(dirichlet(digits.train.labels.tolist(), len(CLIENTS), 0.3, 1, dataset="digits"), path)
    return path


def statistics(root: Path, partition: Path, settings: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Of every version of a run, two workers with half of the clients each."""
    root.mkdir()
    common = {
        "run.clients": CLIENTS,
        "run.rounds": 2,
        "round.cohort_size": len(CLIENTS),
        "wire.update_encoding": "float32",
    }
    with Federation(root, **{**common, **settings}) as federation:
        federation.start_coordinator()
        for index in range(2):
            config = {"data.kind": "digits", "data.partition": partition}
            if "secure_aggregation.level" in settings:
                config["secure_aggregation.level"] = "passive"
            federation.start_worker(f"worker-{index}", CLIENTS[index::2], config=config)
        assert federation.finish() == 0
        store = federation.store()
        try:
            return [version.figures.statistics for version in store.versions()]
        finally:
            store.close()


def test_representation_quality_needs_no_more_than_masked_sums(tmp_path: Path, partition: Path) -> None:
    ssd = {
        "method.name": "ssd",
        "method.config": SSD,
        "evaluation.every": 1,
        "evaluation.workers": ["worker-0"],
    }
    plain = statistics(tmp_path / "plain", partition, ssd)
    masked = statistics(tmp_path / "masked", partition, {**ssd, **MASKED})
    # Both measure version 0 in round 1: the same model, the same images.
    first = {name: value for name, value in plain[1].items() if name.startswith("quality_h_")}
    assert len(first) >= 6
    assert masked[1]["quality_version"] == plain[1]["quality_version"] == 0
    assert {name: masked[1][name] for name in first} == pytest.approx(first, rel=1e-3, abs=1e-4)
    # After a round of training the models differ by the rounding of their updates.
    second = {name: value for name, value in plain[2].items() if name.startswith("quality_h_")}
    assert {name: masked[2][name] for name in second} == pytest.approx(second, rel=0.05, abs=0.05)
    assert masked[1]["loss"] == pytest.approx(plain[1]["loss"], rel=1e-4)


def test_a_generator_is_trained_from_masked_sums(tmp_path: Path, partition: Path) -> None:
    """From label counts and heads weighted by them; the averaged head needs the first alone."""
    method = {"method.name": "fedgen", "method.config": {**CONFIG, "teacher": "label_weighted_heads"}}
    plain = statistics(tmp_path / "plain", partition, method)
    masked = statistics(tmp_path / "masked", partition, {**method, **MASKED})
    for with_masks, without in zip(masked[1:], plain[1:], strict=True):
        assert with_masks["generator_teacher_loss"] == pytest.approx(
            without["generator_teacher_loss"], rel=1e-3
        )
        assert with_masks["loss"] == pytest.approx(without["loss"], rel=1e-3)


def test_a_method_that_wants_single_updates_is_refused_with_the_reason(
    tmp_path: Path, partition: Path
) -> None:
    settings = {"method.name": "fedgen", "method.config": {**CONFIG, "teacher": "individual_heads"}, **MASKED}
    with Federation(
        tmp_path, **{"run.clients": CLIENTS, "run.rounds": 1, "round.cohort_size": 6, **settings}
    ) as federation:
        coordinator = federation.start_coordinator(wait=False)
        assert coordinator.wait() == 2
        assert "looks at single clients' values" in coordinator.log.read_text()
