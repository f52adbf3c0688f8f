"""The server strategies by the names that a configuration uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coordinator.core.strategies.adagrad import Adagrad
from coordinator.core.strategies.adam import Adam
from coordinator.core.strategies.adaptive import Adaptive
from coordinator.core.strategies.average import Average
from coordinator.core.strategies.momentum import ServerMomentum
from coordinator.core.strategies.nesterov import Nesterov
from coordinator.core.strategies.protocol import Strategy
from coordinator.core.strategies.yogi import Yogi


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """The numbers of a strategy; each takes those that it knows."""

    learning_rate: float = 1.0
    momentum: float = 0.9
    second_momentum: float = 0.99
    adaptivity: float = 1e-3


def _adaptive(kind: type[Adaptive]) -> Callable[[Rates], Strategy]:
    return lambda rates: kind(
        learning_rate=rates.learning_rate,
        momentum=rates.momentum,
        second_momentum=rates.second_momentum,
        adaptivity=rates.adaptivity,
    )


STRATEGIES: Mapping[str, Callable[[Rates], Strategy]] = {
    "average": lambda rates: Average(learning_rate=rates.learning_rate),
    "momentum": lambda rates: ServerMomentum(learning_rate=rates.learning_rate, momentum=rates.momentum),
    "nesterov": lambda rates: Nesterov(learning_rate=rates.learning_rate, momentum=rates.momentum),
    "adagrad": _adaptive(Adagrad),
    "adam": _adaptive(Adam),
    "yogi": _adaptive(Yogi),
}
"""Name -> what makes the strategy of its rates; one row for each file beside this one."""


def create(name: str, rates: Rates) -> Strategy:
    """The strategy called `name`.

    Raises:
        ValueError: no strategy has that name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"no strategy is called {name!r}; choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name](rates)
