"""FedYogi (arXiv 2003.00295): as FedAdam, but v follows large updates at once and forgets them slowly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.adaptive import Adaptive
from coordinator.core.strategies.protocol import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Yogi(Adaptive):
    """v ← v - (1 - second_momentum) · mean² · sign(v - mean²)."""

    def take_in(self, second: Vector, squared: Vector) -> None:
        """V ← v - (1 - second_momentum) · mean² · sign(v - mean²); never below 0."""
        direction = np.sign(np.subtract(second, squared))
        np.multiply(squared, np.float32(1.0) - np.float32(self.second_momentum), out=squared)
        np.multiply(squared, direction, out=squared)
        np.subtract(second, squared, out=second)
