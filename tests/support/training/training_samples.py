"""Digits, a small configuration and one visit of a client: what tests of methods that train networks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from sklearn.datasets import load_digits

from ssd.data.images.source import ImageSource, TensorImages
from ssd.method.protocol import ClientResult, ClientTask
from ssd.methods.self_supervised.base import AlignUniform
from ssd.scaling import ScalingVector

SMALL: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 16, "width": 4},
    "views": "digits",
    "batch_size": 16,
    "local_epochs": 1,
    "lr": 0.05,
}


def digits(start: int = 0, stop: int = 40) -> TensorImages:
    bunch = load_digits()
    pictures = torch.tensor((bunch.images[start:stop] / 16 * 255).round(), dtype=torch.uint8)[:, None]
    return TensorImages(pictures, torch.tensor(bunch.target[start:stop]))


def silent(step: int, steps: int, losses: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


def task_for(method: AlignUniform, **changes: Any) -> ClientTask:
    declaration = method.declare()
    scaling = None
    if declaration.scaling is not None:
        scaling = ScalingVector(declaration.scaling.dimension, (1, 4), declaration.scaling.alpha)
    task = ClientTask(
        run_seed=5,
        round=1,
        rounds=10,
        client_id="client-000",
        base=method.initial(0, None),
        values={"lr": 0.05},
        scaling=scaling,
        artefacts=method.artefacts(0),
    )
    return dataclasses.replace(task, **changes)


def train(method: AlignUniform, data: ImageSource | None = None, **changes: Any) -> ClientResult:
    return method.train(task_for(method, **changes), data or digits(), silent)
