"""FedAvg: every client trains a classifier on its own labels, the models are averaged (arXiv 1602.05629).

With `head = "private"` it is FedPer (arXiv 1912.00818). Centralised training is FedAvg over a partition with a single
client.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssd.methods.supervised.base import Supervised, SupervisedConfig, resolve
from ssd.updates.declaration import Json

NAME = "fedavg"
VERSION = 1


def create(config: Mapping[str, Json]) -> Supervised[SupervisedConfig]:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return Supervised(NAME, VERSION, resolve(SupervisedConfig, config))
