"""What tests of supervised methods share: small digits, a small network, one client's task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from ssd.data.images.source import ImageSource, TensorImages
from ssd.method.protocol import ClientResult, ClientTask
from ssd.method.registry import load
from ssd.methods.supervised.base import Supervised

SMALL: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 16, "width": 4},
    "batch_size": 16,
    "lr": 0.05,
}


def digits(start: int = 0, stop: int = 40) -> TensorImages:
    bunch = load_digits()
    pictures = torch.tensor((bunch.images[start:stop] / 16 * 255).round(), dtype=torch.uint8)[:, None]
    return TensorImages(pictures, torch.tensor(bunch.target[start:stop]))


def silent(step: int, steps: int, losses: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


def build(name: str = "fedavg", **changes: Any) -> Supervised[Any]:
    method = load(name, {**SMALL, **changes})
    assert isinstance(method, Supervised)
    return method


def task_for(method: Supervised[Any], **changes: Any) -> ClientTask:
    task = ClientTask(
        run_seed=5,
        round=1,
        rounds=10,
        client_id="client-000",
        base=method.initial(0, None),
        values={"lr": 0.05},
    )
    return dataclasses.replace(task, **changes)


def train(method: Supervised[Any], data: ImageSource | None = None, **changes: Any) -> ClientResult:
    return method.train(task_for(method, **changes), data or digits(), silent)


def same(first: ClientResult, second: ClientResult) -> bool:
    """Bit for bit, statistics and state included."""
    states = set(first.state) == set(second.state) and all(
        np.array_equal(first.state[name], second.state[name]) for name in first.state
    )
    return states and np.array_equal(first.delta, second.delta) and first.statistics == second.statistics
