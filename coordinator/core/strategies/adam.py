"""FedAdam (arXiv 2003.00295): a decaying mean of squared updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.adaptive import Adaptive
from coordinator.core.strategies.protocol import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Adam(Adaptive):
    """v ← second_momentum · v + (1 - second_momentum) · mean²."""

    def take_in(self, second: Vector, squared: Vector) -> None:
        """V ← second_momentum · v + (1 - second_momentum) · mean²."""
        decay = np.float32(self.second_momentum)
        np.multiply(second, decay, out=second)
        np.multiply(squared, np.float32(1.0) - decay, out=squared)
        np.add(second, squared, out=second)
