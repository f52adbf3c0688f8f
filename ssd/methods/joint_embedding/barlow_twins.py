"""Barlow Twins (arXiv 2103.03230): the correlation of two views shall be the identity; clients' models are averaged as in FedAvg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.updates.declaration import Json

NAME = "barlow_twins"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BarlowTwinsConfig(AlignUniformConfig):
    """Settings: those of FedAlignUniform, with another objective (its choices: `barlow_twins`)."""

    objective: Literal["barlow_twins"] = "barlow_twins"


class BarlowTwins(AlignUniform):
    """The method; see `BarlowTwinsConfig` for its settings."""

    def __init__(self, config: BarlowTwinsConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=BASE_STATISTICS)


def create(config: Mapping[str, Json]) -> BarlowTwins:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return BarlowTwins(resolve(BarlowTwinsConfig, config))
