"""What FedAdagrad, FedYogi and FedAdam share (arXiv 2003.00295, algorithm 2).

    m ← momentum · m + (1 - momentum) · mean
    v ← by each of the three
    the model moves by learning_rate · m / (sqrt(v) + adaptivity)

There is no correction for the first rounds, as in the paper. The paper starts v anywhere from adaptivity² on; here it
starts at 0, like every moment. Parameters are moved in blocks, so that what is computed on the way takes no memory of
the model's size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coordinator.core.strategies.protocol import Vector

_BLOCK = 1 << 16
"""Parameters moved at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adaptive(ABC):
    """A strategy with a rate of its own for every parameter."""

    learning_rate: float = 0.01
    momentum: float = 0.9
    """beta_1 of the paper, which sets it to 0 for FedAdagrad."""
    second_momentum: float = 0.99
    """beta_2."""
    adaptivity: float = 1e-3
    """tau: the smaller, the more alike all steps are."""
    moments: tuple[str, ...] = ("momentum", "second_momentum")

    def step(self, mean: Vector, moments: Mapping[str, Vector]) -> Vector:
        """learning_rate · m / (sqrt(v) + adaptivity), after m and v took in the mean."""
        for start in range(0, mean.size, _BLOCK):
            where = slice(start, start + _BLOCK)
            self._move(mean[where], moments["momentum"][where], moments["second_momentum"][where])
        return mean

    def _move(self, mean: Vector, first: Vector, second: Vector) -> None:
        """One block; `mean` becomes the step."""
        decay = np.float32(self.momentum)
        self.take_in(second, np.multiply(mean, mean))
        np.multiply(first, decay, out=first)
        np.multiply(mean, np.float32(1.0) - decay, out=mean)
        np.add(first, mean, out=first)
        divisor = np.sqrt(second)
        np.add(divisor, np.float32(self.adaptivity), out=divisor)
        np.multiply(first, np.float32(self.learning_rate), out=mean)
        np.divide(mean, divisor, out=mean)

    @abstractmethod
    def take_in(self, second: Vector, squared: Vector) -> None:
        """Change v in place by the squared mean update, which may be reused."""
        ...
