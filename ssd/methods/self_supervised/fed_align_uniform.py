"""FedAlignUniform: FedAvg over clients that minimise alignment plus uniformity; the base method of SSD."""

from __future__ import annotations

from collections.abc import Mapping

from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.updates.declaration import Json

NAME = "fed_align_uniform"
VERSION = 1


class FedAlignUniform(AlignUniform):
    """The method; see `AlignUniformConfig` for its settings."""

    def __init__(self, config: AlignUniformConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=BASE_STATISTICS)


def create(config: Mapping[str, Json]) -> FedAlignUniform:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return FedAlignUniform(resolve(AlignUniformConfig, config))
