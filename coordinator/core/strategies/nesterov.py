"""FedAvgM with Nesterov's look ahead (arXiv 1909.06335, section 4.3): as momentum, one step further along the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.protocol import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Nesterov:
    """v ← momentum · v + mean; the model moves by learning_rate · (mean + momentum · v)."""

    learning_rate: float = 1.0
    momentum: float = 0.9
    moments: tuple[str, ...] = ("momentum",)

    def step(self, mean: Vector, moments: Mapping[str, Vector]) -> Vector:
        """learning_rate · (mean + momentum · v), after v took in the mean."""
        velocity, decay = moments["momentum"], np.float32(self.momentum)
        np.multiply(velocity, decay, out=velocity)
        np.add(velocity, mean, out=velocity)
        np.add(mean, velocity * decay, out=mean)
        np.multiply(mean, np.float32(self.learning_rate), out=mean)
        return mean
