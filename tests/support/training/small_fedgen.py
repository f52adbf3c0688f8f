"""FedGen on digits in one process: clients train, a real fold adds them up, the hook makes the next artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from ssd.data.images.source import TensorImages
from ssd.method.protocol import ClientResult, ClientTask, CollectedUpdate, Reduction, ReductionResult
from ssd.method.registry import load
from ssd.method.schedule import resolve
from ssd.methods.fedgen.method import FedGen
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, encode_update
from ssd.updates.fold_plan import FoldPlan

CONFIG: dict[str, Any] = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 12, "width": 4},
    "batch_size": 16,
    "local_steps": 3,
    "buffers": "local",
    "lr": 0.05,
    "generator": {"noise_dim": 4, "hidden_dim": 16},
    "server": {"steps": 4, "batch_size": 8},
    "generator_lr": 0.01,
}
ROUNDS = 10


def fedgen(**changes: Any) -> FedGen:
    method = load("fedgen", {**CONFIG, **changes})
    assert isinstance(method, FedGen)
    return method


def digits_of(labels: Sequence[int], count: int = 40) -> TensorImages:
    """The first `count` digits with one of these labels."""
    bunch = load_digits()
    chosen = np.flatnonzero(np.isin(bunch.target, list(labels)))[:count]
    pictures = torch.tensor((bunch.images[chosen] / 16 * 255).round(), dtype=torch.uint8)[:, None]
    return TensorImages(pictures, torch.tensor(bunch.target[chosen]))


class SmallFederation:
    """Clients by name; `round` trains some of them and commits."""

    def __init__(self, method: FedGen, clients: Mapping[str, TensorImages], seed: int = 5) -> None:
        self.method, self.clients, self.seed = method, clients, seed
        self.declaration = method.declare()
        self.plan = FoldPlan.create(self.declaration, Encoding.FLOAT32, 16, 1 << 20)
        self.vector = method.initial(seed, None)
        self.number = 0
        self.client_states: dict[str, Mapping[str, np.ndarray]] = {}
        self.hook_state: Mapping[str, np.ndarray] = {}
        self.artefacts: Mapping[str, np.ndarray] = {}

    def task(self, client: str) -> ClientTask:
        """One client's visit in the coming round."""
        return ClientTask(
            run_seed=self.seed,
            round=self.number + 1,
            rounds=ROUNDS,
            client_id=client,
            base=self.vector,
            values=resolve(self.declaration.schedules, self.number + 1, ROUNDS),
            artefacts=self.artefacts,
            state=self.client_states.get(client, {}),
        )

    def train(self, client: str) -> ClientResult:
        """What comes of it."""
        return self.method.train(self.task(client), self.clients[client], lambda *seen: None)

    def reduction(self, results: Mapping[str, ClientResult]) -> Reduction:
        """What the hook of the coming round would see of these results."""
        fold = Fold(self.plan)
        for result in results.values():
            room = bytearray(self.plan.update_nbytes)
            fold.add_update(encode_update(self.plan, result.delta, result.statistics, room), result.weight)
        opened = fold.open()
        return Reduction(
            run_seed=self.seed,
            round=self.number + 1,
            rounds=ROUNDS,
            base=self.vector,
            delta=opened.delta,
            weight=opened.weight,
            clients=opened.clients,
            values=resolve(self.declaration.schedules, self.number + 1, ROUNDS),
            statistics=opened.statistics,
            state=self.hook_state,
            artefacts=self.artefacts,
            collected=[self._collected(name, results[name]) for name in sorted(results)]
            if self.declaration.collects
            else (),
        )

    def _collected(self, client: str, result: ClientResult) -> CollectedUpdate:
        where = self.declaration.spec.groups
        return CollectedUpdate(
            client=client,
            weight=result.weight,
            groups={
                each.name: result.delta[where[each.name]] for each in self.declaration.groups if each.collect
            },
            statistics={
                each.name: result.statistics[each.name]
                for each in self.declaration.statistics
                if each.collect
            },
        )

    def round(self, cohort: Sequence[str] | None = None) -> tuple[dict[str, ClientResult], ReductionResult]:
        """Train a cohort (default: everybody), reduce, run the hook, commit."""
        results = {client: self.train(client) for client in (cohort or list(self.clients))}
        reduction = self.reduction(results)
        made = self.method.after_reduce(reduction)
        self.client_states |= {client: result.state for client, result in results.items()}
        self.vector = self.vector + reduction.delta
        self.hook_state, self.artefacts = made.state, made.artefacts
        self.number += 1
        return results, made


def three_clients() -> dict[str, TensorImages]:
    """Skewed: nobody holds 8 or 9."""
    return {"a": digits_of([0, 1, 2]), "b": digits_of([2, 3, 4], 50), "c": digits_of([5, 6, 7], 30)}
