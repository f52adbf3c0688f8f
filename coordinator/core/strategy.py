"""How the averaged update moves the global model. Pure float32 arithmetic, the same on every host.

A strategy sees the mean update of the *optimised* groups only; BatchNorm buffers always move by their plain
mean (design §4.2). Each operation is one numpy float32 operation, never fused, so bits do not depend on the
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Strategy(Protocol):
    """Turns the mean update into the step of the global model."""

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of the server-state vectors ([n] float32, zero at first) it keeps; they commit with the version."""
        ...

    def step(self, mean: Vector, moments: Mapping[str, Vector]) -> Vector:
        """The step for one optimised slice. Changes `moments` in place and may reuse `mean`."""
        ...


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


def create(name: str, *, learning_rate: float, momentum: float) -> Strategy:
    """The strategy called `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "average":
        return Average(learning_rate=learning_rate)
    if name == "momentum":
        return ServerMomentum(learning_rate=learning_rate, momentum=momentum)
    raise ValueError(f"no strategy is called {name!r}; choose 'average' or 'momentum'")
