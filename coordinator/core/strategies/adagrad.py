"""FedAdagrad (arXiv 2003.00295): every squared update is remembered, so steps only become shorter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.adaptive import Adaptive
from coordinator.core.strategies.protocol import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Adagrad(Adaptive):
    """v ← v + mean²."""

    def take_in(self, second: Vector, squared: Vector) -> None:
        """V ← v + mean²."""
        np.add(second, squared, out=second)
