"""FedAvg (arXiv 1602.05629): the model moves by the mean update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.protocol import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Average:
    """FedAvg: the model moves by `learning_rate` times the mean update (arXiv 1602.05629)."""

    learning_rate: float = 1.0
    moments: tuple[str, ...] = ()

    def step(self, mean: Vector, moments: Mapping[str, Vector]) -> Vector:
        """learning_rate · mean; bit-equal to the mean itself at rate 1."""
        if self.learning_rate != 1.0:
            np.multiply(mean, np.float32(self.learning_rate), out=mean)
        return mean
