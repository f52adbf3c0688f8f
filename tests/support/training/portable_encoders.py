"""Encoder files of every architecture, with weights and statistics in which every mistake shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ssd.data.images.source import ImageFormat
from ssd.export.encoder_file import encoder_metadata, write_encoder
from ssd.models.registry import ModelConfig, skeleton
from ssd.settings import to_json

GREY = {"mean": [0.2], "std": [0.5]}
COLOUR = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}
PROVENANCE = {
    "parent_digest": "cd" * 32,
    "mode": "elastic",
    "rounds": 20,
    "registered_clients": 12,
    "included_clients": 11,
    "total_weight": 4321,
    "statistics": {"clients": 7.0, "weight": 987.0},
    "evaluation": {"knn_all": 0.75},
    "secure_aggregation": "active",
    "privacy": "epsilon 2 at delta 1e-05 after 3 rounds",
    "build": "test/1",
}
FACTS = {
    "run": "run-7",
    "version": "3",
    "method": "ssd",
    "model_digest": "ab" * 32,
    "declaration_digest": "ef" * 32,
    "config": json.dumps({"lr": 0.05, "views": "digits"}),
    "provenance": json.dumps(PROVENANCE),
}


def tensors_of(model: ModelConfig, image: ImageFormat, *, statistics: bool = True) -> dict[str, np.ndarray]:
    """State by name, without batch counters; BatchNorm's parameters and statistics are none of their defaults."""
    random = np.random.default_rng(5)
    found = {}
    for name, value in skeleton(model, image).state_dict().items():
        if name.endswith("num_batches_tracked") or (not statistics and "running_" in name):
            continue
        shape = tuple(value.shape)
        if len(shape) == 1:
            found[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            spread = np.float32((2.0 / np.prod(shape[1:])) ** 0.5)
            found[name] = random.standard_normal(shape, np.float32) * spread
    return found


def write(
    path: Path,
    model: ModelConfig,
    image: ImageFormat,
    *,
    statistics: bool = True,
    normalise: dict[str, list[float]] | None = None,
    **facts: str,
) -> Path:
    """An encoder file, its metadata `facts` and what `load_encoder` needs."""
    config = {"model": to_json(model), "image": to_json(image), "normalise": normalise}
    write_encoder(
        path, tensors_of(model, image, statistics=statistics), {**encoder_metadata(config), **facts}
    )
    return path
