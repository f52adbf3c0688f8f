"""FedAvgM (arXiv 1909.06335): the model moves by a decaying sum of mean updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.protocol import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerMomentum:
    """FedAvgM: v ← momentum · v + mean; the model moves by learning_rate · v (arXiv 1909.06335)."""

    learning_rate: float = 1.0
    momentum: float = 0.9
    moments: tuple[str, ...] = ("momentum",)

    def step(self, mean: Vector, moments: Mapping[str, Vector]) -> Vector:
        """learning_rate · v, after v took in the mean."""
        velocity = moments["momentum"]
        np.multiply(velocity, np.float32(self.momentum), out=velocity)
        np.add(velocity, mean, out=velocity)
        np.multiply(velocity, np.float32(self.learning_rate), out=mean)
        return mean
