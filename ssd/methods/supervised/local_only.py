"""Local training: every client trains a classifier alone. It is the lower end of every comparison.

A client starts from version 0 and goes on from its own whole model, whatever it receives. It sends its model all the
same, because that is how a round is made; the average nobody uses is a by-product, and so are `accuracy` at the server
and an exported encoder. What counts is each client's own accuracy (`evaluate_client`). Clients that have not trained
yet have no model of their own and are not counted there.

The upper end of the comparison, centralised training, is `fedavg` over a partition with a single client.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssd.method.protocol import ClientEvaluationTask
from ssd.methods.supervised.base import Supervised, SupervisedConfig, resolve
from ssd.methods.supervised.state import ClientState
from ssd.updates.declaration import Json

NAME = "local_only"
VERSION = 1


class LocalOnly(Supervised[SupervisedConfig]):
    """Every client trains a model of its own, and nobody uses the average."""

    resumes = True

    def initial(self, seed: int, warm_start: Path | None) -> NDArray[np.float32]:
        """See `Method.initial`.

        Raises:
            ValueError: a warm start: a client that joins late would not receive it.
        """
        if warm_start is not None:
            raise ValueError("local_only starts every client from the run's seed and takes no warm start")
        return super().initial(seed, None)

    def start(self, run_seed: int, received: NDArray[np.float32], state: ClientState) -> NDArray[np.float32]:
        """The client's own model; version 0 before its first round, even if that comes late."""
        return self.initial(run_seed, None) if state.model is None else state.model

    def evaluate_client(self, task: ClientEvaluationTask, train: object, test: object) -> Mapping[str, float]:
        """`correct` and `images` with the client's own model; nothing for a client without one."""
        if ClientState.read(task.state).model is None:
            return {}
        return super().evaluate_client(task, train, test)


def create(config: Mapping[str, Json]) -> LocalOnly:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return LocalOnly(NAME, VERSION, resolve(SupervisedConfig, config))
