"""Representation quality live: what a coordinator tells of its clients' images without ever seeing a feature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordinator.store.files.blobs import FileBlobs
from processes.federation import Federation
from ssd.data.images.source import ImageFormat
from ssd.data.images.subset import SubsetImages
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, load, save
from ssd.evaluation import quality as exact
from ssd.evaluation.features import features, module_encoder
from ssd.evaluation.federated_quality import chosen_images
from ssd.methods.self_supervised import ssd

pytestmark = pytest.mark.e2e
CLIENTS = [f"client-{index:03d}" for index in range(10)]
SEED, ROUNDS = 5, 4
METHOD: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small"},
    "views": "digits",
    "local_epochs": 1,
    "batch_size": 32,
    "lr": 0.05,
}
QUALITY = {"features": ["h"], "images": 150, "min_images": 64}


def run(root: Path, partition: Path, workers: int, quality: dict[str, Any] | None) -> dict[str, Any]:
    """Digests, the statistics of every version, the status and the metrics of a run, and the measured vectors."""
    root.mkdir()
    settings = {
        "run.clients": CLIENTS,
        "run.rounds": ROUNDS,
        "run.seed": SEED,
        "run.when_done": "serve",
        "method.name": "ssd",
        "method.config": {**METHOD, "quality": quality} if quality else METHOD,
        "evaluation.every": 2,
        "evaluation.workers": ["worker-0"],
        "retention.full_versions": 10,
    }
    with Federation(root, **settings) as federation:
        federation.start_coordinator()
        for index in range(workers):
            data = {"data.kind": "digits", "data.partition": partition}
            federation.start_worker(f"worker-{index}", CLIENTS[index::workers], config=data)
        federation.until(lambda: federation.status().version.number == ROUNDS, "all rounds", patience=240)
        found: dict[str, Any] = {
            "status": dict(federation.status().statistics),
            "gauge": federation.metric("ssd_coordinator_quality", features="h", measure="uniformity_inter"),
            "version": federation.metric("ssd_coordinator_quality_version"),
        }
        # A coordinator that starts again on the run still tells what was measured last.
        assert federation.coordinator is not None
        federation.coordinator.kill()
        federation.start_coordinator()
        found["again"] = federation.metric(
            "ssd_coordinator_quality", features="h", measure="uniformity_inter"
        )
        assert federation.status().statistics == found["status"]
        federation.coordinator.kill()
        store = federation.store()
        try:
            versions = store.versions()
        finally:
            store.close()
        blobs = FileBlobs(federation.state_dir)
        found["digests"] = [version.model_digest for version in versions]
        found["statistics"] = {version.number: dict(version.figures.statistics) for version in versions}
        found["vectors"] = {
            version.number: np.array(blobs.open(version.full.digest).map().view("<f4"))
            for version in versions
        }
        return found


def pooled(vector: np.ndarray, partition: Path) -> tuple[torch.Tensor, list[int]]:
    """The features of the images that clients look at, and whose they are."""
    train = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1)).train
    method = ssd.create({**METHOD, "quality": QUALITY})
    quality = method.declare().quality
    assert quality is not None
    model = method._model(torch.device("cpu"))
    model.load(vector)
    encode = module_encoder(model.parts["encoder"])
    parts, owners = [], []
    for number, (client, indices) in enumerate(sorted(load(partition).clients.items())):
        rows = chosen_images(quality, SEED, client, len(indices))
        if rows:
            parts.append(features(encode, SubsetImages(train, [indices[row] for row in rows])))
            owners += [number] * len(rows)
    return torch.cat(parts), owners


def test_the_figures_are_those_of_the_pooled_images_and_the_model_is_none_the_wiser(tmp_path: Path) -> None:
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    partition = tmp_path / "partition.json"
    save(dirichlet(digits.train.labels.tolist(), 10, 0.3, 1, dataset="digits"), partition)
    found = run(tmp_path / "measured", partition, 2, QUALITY)
    for version in (0, 2):
        told = found["statistics"][version + 1]
        vectors, owners = pooled(found["vectors"][version], partition)
        spread = exact.uniformity(vectors, owners)
        assert told["quality_version"] == version
        assert told["quality_h_images"] == len(owners)
        assert 2 <= told["quality_h_clients"] == len(set(owners)) < 10
        assert told["quality_h_uniformity_intra"] == pytest.approx(spread.intra, abs=1e-4)
        assert told["quality_h_uniformity_inter"] == pytest.approx(spread.inter, abs=0.01)
        assert told["quality_h_uniformity_global"] == pytest.approx(spread.overall, abs=0.01)
        rank = exact.effective_rank(vectors).value
        assert told["quality_h_effective_rank"] == pytest.approx(rank, rel=1e-3)
    for version in (2, 4):
        assert not [name for name in found["statistics"][version] if name.startswith("quality_")]
    newest = found["statistics"][3]["quality_h_uniformity_inter"]
    assert found["gauge"] == found["again"] == found["status"]["quality_h_uniformity_inter"] == newest
    assert found["version"] == found["status"]["quality_version"] == 2
    json.dumps(found["statistics"], allow_nan=False)

    plain = run(tmp_path / "plain", partition, 1, None)
    assert plain["digests"] == found["digests"]
    assert not [name for name in plain["status"] if name.startswith("quality_")]
