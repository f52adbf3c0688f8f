"""The server strategies by the names that a configuration uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.core.strategies.average import Average
from coordinator.core.strategies.momentum import ServerMomentum
from coordinator.core.strategies.protocol import Strategy

STRATEGIES: Mapping[str, Callable[[float, float], Strategy]] = {
    "average": lambda learning_rate, _: Average(learning_rate=learning_rate),
    "momentum": lambda learning_rate, momentum: ServerMomentum(
        learning_rate=learning_rate, momentum=momentum
    ),
}
"""Name -> what makes the strategy of a learning rate and a momentum; one row for each file beside this one."""


def create(name: str, *, learning_rate: float, momentum: float) -> Strategy:
    """The strategy called `name`.

    Raises:
        ValueError: no strategy has that name.
    """
    if name not in STRATEGIES:
        known = " or ".join(repr(each) for each in STRATEGIES)
        raise ValueError(f"no strategy is called {name!r}; choose {known}")
    return STRATEGIES[name](learning_rate, momentum)
