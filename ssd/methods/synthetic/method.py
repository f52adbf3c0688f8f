"""A method without learning: deterministic pseudo-updates, numpy only, for trying the *system*.

It runs through the real daemons in the kill, hostile, load and benchmark suites. Its updates are cheap to
make and differ in every coordinate and in magnitude, so that a float sum would depend on the order. They
depend on everything a client receives: run seed, round, identity, a sample of the base, scheduled values,
scaling vector, artefacts and its persistent state, a hash chain that advances once per training. A wrong
base or vector, or a state that advanced twice, changes the digest of the next model version. With `hook` there is
a server hook whose result depends on everything a hook receives, in the same way.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd.daemon.suggest import nearest
from ssd.digest import canonical_json, digest_bytes
from ssd.method.protocol import (
    ClientEvaluationTask,
    ClientResult,
    ClientTask,
    EvaluationTask,
    Progress,
    Reduction,
    ReductionResult,
)
from ssd.methods.synthetic.hook import DRIFT, DRIFT_SHAPE, reduce_synthetically
from ssd.methods.synthetic.numbers import fill, key
from ssd.random_stream import RandomStream
from ssd.updates.declaration import (
    Declaration,
    GroupDeclaration,
    Reducer,
    RoundArtefactDeclaration,
    ScalingDeclaration,
    StatisticDeclaration,
)
from ssd.updates.spec import Kind, ParameterSpec

FAILURES = ("raise", "nan", "over_bound", "over_norm", "huge_weight", "bad_statistic")
STEPS = 10


class SyntheticFailure(RuntimeError):
    """The failure that the configuration asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticConfig:
    """The settings of the synthetic method; unknown keys are refused."""

    tensors: Mapping[str, list[int]] | None = None
    """Name to shape; the encoder's tensors. Wins over `parameters`."""
    parameters: int = 4096
    """Size of the whole vector, buffers included, if no tensors are named; at least 16."""
    scale: float = 0.01
    """Magnitude of the largest values of an update."""
    train_seconds: float = 0.0
    """Simulated work: how long training sleeps."""
    state: bool = True
    """Keep a hash chain as persistent client state."""
    max_weight: int = 64
    """A client's weight is drawn once from 1..max_weight."""
    fail_clients: Mapping[str, str] = field(default_factory=dict)
    """Client id to one of `FAILURES`: what goes wrong with this client's training."""
    fail_rounds: list[int] = field(default_factory=list)
    """Rounds in which the above happens; empty: in all."""
    scaling: Mapping[str, Any] | None = None
    """Fields of a `ScalingDeclaration`; None: no scaling vectors."""
    artefacts: Mapping[str, list[int]] = field(default_factory=dict)
    """Name to shape of arrays made at run creation."""
    client_evaluation: bool = False
    """Measure clients: made-up accuracies that follow from the version, the client and its state."""
    schedules: Mapping[str, Any] = field(default_factory=dict)
    """See `ssd.method.schedule`; a value named `scale` multiplies the update."""
    hook: bool = False
    """Run a server hook in every commit: it keeps a state, makes a round artefact and changes the delta."""
    collect: bool = False
    """The hook works on single clients' values, of the encoder and of the loss; needs `hook`."""
    hook_seconds: float = 0.0
    """Simulated work: how long the hook sleeps."""

    def __post_init__(self) -> None:
        if self.tensors is None and self.parameters < 16:
            raise ValueError(f"parameters must be at least 16, not {self.parameters}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be positive, not {self.scale}")
        if not (math.isfinite(self.train_seconds) and self.train_seconds >= 0):
            raise ValueError(f"train_seconds cannot be {self.train_seconds}")
        if not (math.isfinite(self.hook_seconds) and self.hook_seconds >= 0):
            raise ValueError(f"hook_seconds cannot be {self.hook_seconds}")
        if self.collect and not self.hook:
            raise ValueError("nothing is collected without a hook: set hook = true")
        if self.max_weight < 1:
            raise ValueError(f"max_weight must be at least 1, not {self.max_weight}")
        if unknown := set(self.fail_clients.values()) - set(FAILURES):
            raise ValueError(f"unknown failure {sorted(unknown)}; there are {', '.join(FAILURES)}")


def create(config: Mapping[str, Any]) -> SyntheticMethod:
    """Build the method.

    Raises:
        ValueError: an unknown key, or a value out of range.
    """
    known = [entry.name for entry in fields(SyntheticConfig)]
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(f"config has no key {unknown[0]!r}{nearest(unknown[0], known)}")
    return SyntheticMethod(SyntheticConfig(**config))


class SyntheticMethod:
    """Implements `ssd.method.protocol.Method`; see the module docstring."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self._declaration = _declare(config)

    def declare(self) -> Declaration:
        """Two groups, `encoder` (weighted mean) and `buffers` (plain mean), and four statistics."""
        return self._declaration

    def initial(self, seed: int, warm_start: Path | None) -> NDArray[np.float32]:
        """Version 0: pseudo-random values, running variances positive.

        Raises:
            ValueError: a warm start is asked for; there is nothing to start from.
        """
        if warm_start is not None:
            raise ValueError("the synthetic method cannot start from a file")
        vector = np.empty(self._declaration.spec.size, np.float32)
        fill(vector, key("initial", seed), 1.0)
        for tensor in self._declaration.spec.tensors:
            if tensor.kind is Kind.VARIANCE:
                np.abs(vector[tensor.where], out=vector[tensor.where])
        return vector

    def artefacts(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """The configured arrays, pseudo-random."""
        made = {}
        for name, shape in self.config.artefacts.items():
            flat = np.empty(math.prod(shape), np.float32)
            fill(flat, key("artefact", seed, name), 1.0)
            made[name] = flat.reshape(shape)
        return made

    def train(self, task: ClientTask, data: object, progress: Progress) -> ClientResult:
        """Sleep, then make the update; `data` is not looked at.

        Raises:
            SyntheticFailure: the configuration says that this client raises.
            ValueError: the task lacks the declared scaling vector or an artefact.
        """
        del data
        loss = 1.0 / task.round + 0.1 * RandomStream("synthetic-loss", task.round, task.client_id).uniform()
        for step in range(1, STEPS + 1):
            if self.config.train_seconds:
                sleep(self.config.train_seconds / STEPS)
            progress(step, STEPS, {"loss": loss})
        failing = not self.config.fail_rounds or task.round in self.config.fail_rounds
        failure = self.config.fail_clients.get(task.client_id) if failing else None
        if failure == "raise":
            raise SyntheticFailure(f"client {task.client_id} was told to fail")
        chain, counter = _read_state(task.state)
        delta = np.empty(self._declaration.spec.size, np.float32)
        fill(delta, self._update_key(task, chain, counter), self.config.scale * task.values.get("scale", 1.0))
        weight = 1 + RandomStream("synthetic-weight", task.client_id).below(self.config.max_weight)
        statistics = {
            "loss_sum": np.array(loss * weight),
            "batches": np.array(float(weight)),
            "alignment_sum": np.array(0.5 * loss * weight),
            "uniformity_sum": np.array(-2.0 * loss * weight),
        }
        state: dict[str, NDArray[np.generic]] = {}
        if self.config.state:
            grown = hashlib.sha256(chain + key("state", task.run_seed, task.round, task.client_id))
            state["chain"] = np.frombuffer(grown.digest(), np.uint8)
            state["counter"] = np.array([counter + 1], np.int64)
        if failure is not None:
            weight = self._spoil(failure, delta, statistics, weight)
        return ClientResult(delta=delta, weight=weight, statistics=statistics, state=state)

    def after_reduce(self, reduction: Reduction) -> ReductionResult:
        """Sleep, then make a result that depends on all of the reduction."""
        sleep(self.config.hook_seconds)
        return reduce_synthetically(self._declaration, self.config.scale, reduction)

    def evaluate(self, task: EvaluationTask, data: object) -> Mapping[str, float]:
        """Scalars that follow from the version's values alone."""
        del data
        squares = np.square(task.vector, dtype=np.float64)
        return {
            "synthetic_accuracy": task.version / (task.version + 10.0),
            "parameter_norm": math.sqrt(float(np.add.reduce(squares))),
            "parameter_mean": float(np.mean(task.vector, dtype=np.float64)),
        }

    def evaluate_client(self, task: ClientEvaluationTask, train: object, test: object) -> Mapping[str, float]:
        """A made-up accuracy, and in `trainings` how often the client's state has advanced; no images are looked at.

        Raises:
            ValueError: the task lacks an artefact.
        """
        del train, test
        chain, counter = _read_state(task.state)
        received = canonical_json(self._artefact_digests(task.artefacts, task.version))
        places = np.linspace(0, task.vector.size - 1, 256).astype(np.int64)
        sample = task.vector[places].astype("<f4").tobytes()
        identity = key("measure", task.run_seed, task.version, task.client_id)
        draw = RandomStream(
            "synthetic-accuracy", hashlib.sha256(identity + chain + received + sample).hexdigest()
        )
        images = 10 + RandomStream("synthetic-images", task.client_id).below(90)
        return {"correct": draw.below(images + 1), "images": images, "trainings": counter}

    def export(self, vector: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        """All tensors of the group `encoder` and the buffers, by name."""
        return {
            tensor.name: vector[tensor.where].reshape(tensor.shape).copy()
            for tensor in self._declaration.spec.tensors
        }

    def _update_key(self, task: ClientTask, chain: bytes, counter: int) -> bytes:
        if (self.config.scaling is None) != (task.scaling is None):
            raise ValueError("the task's scaling vector is not what the method declares")
        received = {
            "values": dict(task.values),
            "scaling": task.scaling.to_json() if task.scaling else None,
            "artefacts": self._artefact_digests(task.artefacts, task.round - 1),
            "chain": chain.hex(),
            "counter": counter,
        }
        # A sample of the base is enough: every coordinate changes in every round.
        places = np.linspace(0, task.base.size - 1, 256).astype(np.int64)
        sample = task.base[places].astype("<f4").tobytes()
        identity = key("update", task.run_seed, task.round, task.client_id)
        return hashlib.sha256(identity + canonical_json(received) + sample).digest()

    def _artefact_digests(self, artefacts: Mapping[str, NDArray[np.float32]], version: int) -> dict[str, str]:
        """The digests of all artefacts that a task about this version must bring."""
        made = {DRIFT} if self.config.hook and version > 0 else set()
        if set(artefacts) != set(self.config.artefacts) | made:
            raise ValueError(f"the task has the artefacts {sorted(artefacts)}")
        return {name: digest_bytes(values) for name, values in artefacts.items()}

    def _spoil(
        self,
        failure: str,
        delta: NDArray[np.float32],
        statistics: dict[str, NDArray[np.float64]],
        weight: int,
    ) -> int:
        encoder = self._declaration.group("encoder")
        where = self._declaration.spec.groups["encoder"]
        if failure == "nan":
            delta[delta.size // 2] = np.nan
        elif failure == "over_bound":
            delta[where.start] = 2.0 * encoder.max_abs
        elif failure == "over_norm":
            delta[where] = 0.9 * encoder.max_abs
        elif failure == "bad_statistic":
            statistics["loss_sum"] = np.array(1e300)
        return 1 << 62 if failure == "huge_weight" else weight


def _declare(config: SyntheticConfig) -> Declaration:
    spec = ParameterSpec.build(_entries(config))
    bound, magnitude = 8.0 * config.scale, 4.0 * config.scale
    groups = [
        GroupDeclaration(
            name=name,
            reducer=Reducer.WEIGHTED_MEAN if name == "encoder" else Reducer.PLAIN_MEAN,
            max_abs=bound,
            norm_bound=magnitude * math.sqrt(where.stop - where.start),
            compress=name == "encoder",
            optimise=name == "encoder",
            collect=config.collect and name == "encoder",
        )
        for name, where in spec.groups.items()
    ]
    names = ("loss_sum", "batches", "alignment_sum", "uniformity_sum")
    scaling = None if config.scaling is None else ScalingDeclaration(**config.scaling)
    return Declaration(
        method="synthetic",
        version=1,
        spec=spec,
        groups=tuple(groups),
        statistics=tuple(
            StatisticDeclaration(name=name, collect=config.collect and name == "loss_sum") for name in names
        ),
        artefacts=tuple(config.artefacts),
        scaling=scaling,
        schedules=dict(config.schedules),
        needs_images=False,
        persists_client_state=config.state,
        server_hook=config.hook,
        round_artefacts=(RoundArtefactDeclaration(name=DRIFT, shape=DRIFT_SHAPE),) if config.hook else (),
        client_evaluation=config.client_evaluation,
        config={entry.name: getattr(config, entry.name) for entry in fields(config)},
    )


def _entries(config: SyntheticConfig) -> list[tuple[str, list[int], str, Kind]]:
    if config.tensors is not None:
        shapes = {name: list(shape) for name, shape in config.tensors.items()}
        buffers = 64
    else:
        buffers = min(64, config.parameters // 16)
        rest = config.parameters - 2 * buffers
        # One dominant tensor, as in a real network, then smaller ones.
        sizes = [rest - rest // 2 - rest // 4 - rest // 8, rest // 2, rest // 4, rest // 8]
        shapes = {f"layer{i}.weight": [size] for i, size in enumerate(sizes)}
    entries = [(name, shape, "encoder", Kind.PARAMETER) for name, shape in shapes.items()]
    entries.append(("norm.running_mean", [buffers], "buffers", Kind.BUFFER))
    entries.append(("norm.running_var", [buffers], "buffers", Kind.VARIANCE))
    return entries


def _read_state(state: Mapping[str, NDArray[np.generic]]) -> tuple[bytes, int]:
    if not state:
        return bytes(32), 0
    return state["chain"].tobytes(), int(np.asarray(state["counter"], np.int64)[0])
