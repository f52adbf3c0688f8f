"""What a server strategy is: how the averaged update moves the global model.

A strategy sees the mean update of the *optimised* groups only; BatchNorm buffers always move by their plain
mean (design §4.2). Each operation is one numpy float32 operation, never fused, so bits do not depend on the
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
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
