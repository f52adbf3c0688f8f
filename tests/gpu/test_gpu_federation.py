"""A coordinator and a CUDA worker: rounds commit, deterministic training repeats its digest, losses agree with the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.e2e,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CLIENTS = [f"client-{index:03d}" for index in range(4)]
LOSS_TOLERANCE = 0.02
"""Two rounds of SGD amplify the last bits in which the devices differ; the mean losses stay this close."""


def run(root: Path, partition: Path, device: str) -> tuple[list[str], dict[str, float]]:
    root.mkdir()
    settings = {
        "run.clients": CLIENTS,
        "run.rounds": 2,
        "round.cohort_size": 4,
        "method.name": "ssd",
        "method.config": {
            "preset": "official",
            "image": {"size": 8, "channels": 1},
            "model": {"name": "small"},
            "views": "digits",
            "local_epochs": 1,
            "batch_size": 64,
            "lr": 0.02,
        },
    }
    with Federation(root, **settings) as federation:
        federation.start_coordinator()
        federation.start_worker(
            "worker",
            CLIENTS,
            config={"worker.device": device, "data.kind": "digits", "data.partition": partition},
        )
        federation.until(lambda: not federation.coordinator.running, "two rounds", patience=300)
        assert federation.coordinator.wait() == 0
        store = federation.store()
        try:
            statistics = [dict(version.figures.statistics) for version in store.versions()][1:]
        finally:
            store.close()
        return federation.digests(), statistics[0]


def test_cuda_rounds_commit_repeat_and_agree_with_the_cpu(tmp_path: Path) -> None:
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    partition = tmp_path / "partition.json"
    save(dirichlet(digits.train.labels.tolist(), 4, 0.5, 1, dataset="digits"), partition)
    first, cuda = run(tmp_path / "cuda", partition, "cuda")
    again, _ = run(tmp_path / "again", partition, "cuda")
    assert len(set(first)) == 3
    assert again == first, "deterministic mode repeats its digest"
    _, cpu = run(tmp_path / "cpu", partition, "cpu")
    for term in ("loss", "alignment", "uniformity"):
        assert cuda[term] == pytest.approx(cpu[term], abs=LOSS_TOLERANCE), term
