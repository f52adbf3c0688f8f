"""The protocol every federated method is written against.

A method is built from its resolved configuration alone, so the coordinator's method host and every worker
build the same one. It must be deterministic: all randomness comes from the seeds in the task, global
generators are never touched. The framework owns encoding, weighting, summing, commits and persistence; a
method only turns (model, data, state) into (delta, weight, statistics, new state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ssd.declaration import Declaration
from ssd.scaling import ScalingVector

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called as progress(step, steps, latest losses) from inside `train`; cheap, may be called every step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientTask:
    """One client's work in one round. Two equal tasks on equal data give bit-equal results."""

    run_seed: int
    round: int
    """1-based: the round that makes version `round` out of version `round - 1`."""
    rounds: int
    client_id: str
    base: NDArray[np.float32]
    """[n] the received parameters, read-only: FedProx's anchor and the distillation teacher."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Schedules resolved by the coordinator for this round."""
    scaling: ScalingVector | None = None
    artefacts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """The client's persistent state; empty before its first committed round."""
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientResult:
    """What training changed."""

    delta: NDArray[np.float32]
    """[n] new parameters minus base, one float32 subtraction."""
    weight: int
    """Integer aggregation weight, at least 1 (for example the number of mini-batches)."""
    statistics: Mapping[str, NDArray[np.float64]]
    """Exactly the declared statistics, in their declared shapes."""
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """The client's next persistent state; becomes current only when a commit includes the client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """Measure one model version on an evaluator's probe data."""

    run_seed: int
    version: int
    vector: NDArray[np.float32]
    """[n] the parameters of the version, read-only."""
    device: str = "cpu"
    threads: int = 1
    options: Mapping[str, float] = field(default_factory=dict)


class Method(Protocol):
    """A federated method. Implementations live one per file beside this one."""

    def declare(self) -> Declaration:
        """The method's declaration; the same for equal configurations on every host."""
        ...

    def initial(self, seed: int, warm_start: Path | None) -> NDArray[np.float32]:
        """Version 0, [n] float32, optionally starting from an encoder file (`safetensors`).

        Raises:
            ValueError: the warm start does not fit; the message names the first tensor that differs.
        """
        ...

    def artefacts(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """The declared artefacts; computed once by the coordinator's method host, then served by digest."""
        ...

    def train(self, task: ClientTask, data: object, progress: Progress) -> ClientResult:
        """Train one client. `data` is what `ssd.data` opened for it (None if no images are needed)."""
        ...

    def evaluate(self, task: EvaluationTask, data: object) -> Mapping[str, float]:
        """Named scalars describing the version on the evaluator's probe data."""
        ...

    def export(self, vector: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        """The tensors a user takes home (the encoder, without projector), by state-dict name."""
        ...
