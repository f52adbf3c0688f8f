"""A method for tests of differential privacy: every client moves the first value alone, by the same length, and no other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd.method.protocol import ClientResult, ClientTask, Progress
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer, StatisticDeclaration
from ssd.updates.spec import Kind, ParameterSpec


class Straight:
    """See the module docstring. `parameters`: values of the model; `length`: of every update;
    `train_seconds`: how long it takes to find that out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)
        self._size, self._length = int(config["parameters"]), float(config["length"])
        self._seconds = float(config.get("train_seconds", 0.0))

    def declare(self) -> Declaration:
        spec = ParameterSpec.build([("weight", (self._size,), "encoder", Kind.PARAMETER)])
        group = GroupDeclaration(
            name="encoder", reducer=Reducer.WEIGHTED_MEAN, max_abs=1000.0, norm_bound=1000.0
        )
        return Declaration(
            method="straight",
            version=1,
            spec=spec,
            groups=(group,),
            statistics=(StatisticDeclaration(name="loss_sum"), StatisticDeclaration(name="batches")),
            needs_images=False,
            config=self._config,
        )

    def initial(self, seed: int, warm_start: Path | None) -> NDArray[np.float32]:
        return np.zeros(self._size, np.float32)

    def artefacts(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        return {}

    def train(self, task: ClientTask, data: object, progress: Progress) -> ClientResult:
        time.sleep(self._seconds)
        delta = np.zeros(self._size, np.float32)
        delta[0] = self._length
        told = {"loss_sum": np.array(3.0), "batches": np.array(2.0)}
        return ClientResult(delta=delta, weight=17, statistics=told, state={})


def create(config: Mapping[str, Any]) -> Straight:
    return Straight(config)
