"""The protocol every federated method is written against.

A method is built from its resolved configuration alone, so the coordinator's method host and every worker
build the same one. It must be deterministic: all randomness comes from the seeds in the task, global
generators are never touched. The framework owns encoding, weighting, summing, commits and persistence; a
method only turns (model, data, state) into (delta, weight, statistics, new state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ssd.scaling import ScalingVector
from ssd.updates.declaration import Declaration

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
    quality: bool = False
    """Whether to measure representation quality in this round: the result then carries the sums of
    `Declaration.quality` among its statistics."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientEvaluationTask:
    """Measure one model version, together with a client's own state, on that client's test images."""

    run_seed: int
    version: int
    client_id: str
    vector: NDArray[np.float32]
    """[n] the parameters of the version, read-only."""
    scaling: ScalingVector | None = None
    """The client's, as in its training."""
    artefacts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """The client's current persistent state; empty if it has none yet."""
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectedUpdate:
    """One client's update as a server hook with `collect` sees it. Arrays are memory-mapped and read-only."""

    client: str
    weight: int
    groups: Mapping[str, NDArray[np.float32]]
    """The collected groups' values (decoded delta), [group size] each."""
    statistics: Mapping[str, NDArray[np.float64]]
    """The collected statistics in their declared shapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reduction:
    """What a server hook works from. Equal reductions must give equal results, bit for bit."""

    run_seed: int
    round: int
    rounds: int
    base: NDArray[np.float32]
    """[n] the version the round started from, read-only."""
    delta: NDArray[np.float32]
    """[n] the cohort's updates reduced as declared, read-only."""
    weight: int
    clients: int
    values: Mapping[str, float]
    """Schedules resolved for this round."""
    statistics: Mapping[str, NDArray[np.float64]]
    """Sums over the cohort in their declared shapes."""
    state: Mapping[str, NDArray[np.generic]]
    """What the hook returned as state in the last committed round; empty in round 1."""
    artefacts: Mapping[str, NDArray[np.float32]]
    """The run's fixed artefacts and the last round's round artefacts."""
    collected: Sequence[CollectedUpdate] = ()
    """Only with `Declaration.collects`: in client-id order, opened one at a time when iterated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReductionResult:
    """What a server hook makes of it."""

    delta: NDArray[np.float32] | None = None
    """[n] replaces the reduced delta; None keeps it. The strategy's step follows either way."""
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Committed with the version and handed back in the next round."""
    artefacts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Exactly the declared round artefacts."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Finite numbers that join the version's statistics."""


@runtime_checkable
class ServerHook(Protocol):
    """What a method with `server_hook` in its declaration has besides `Method`."""

    def after_reduce(self, reduction: Reduction) -> ReductionResult:
        """A pure function, run by the method host on one CPU thread inside the commit."""
        ...


@runtime_checkable
class EvaluatesClients(Protocol):
    """What a method with `client_evaluation` in its declaration has besides `Method`."""

    def evaluate_client(self, task: ClientEvaluationTask, train: object, test: object) -> Mapping[str, float]:
        """Additive numbers on one client's own images; `correct` out of `images` make its accuracy. {}: there is
        nothing to measure, and the client is left out.

        Names are words of `[a-z][a-z0-9_]*`; see `ssd.evaluation.client_measures` for what becomes of them.

        Args:
            task: what to measure.
            train: the client's training `ImageSource`; None if the method needs no images.
            test: the client's test `ImageSource`, not empty; None likewise.
        """
        ...


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
