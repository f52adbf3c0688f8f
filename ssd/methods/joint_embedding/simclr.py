"""SimCLR (arXiv 2002.05709): NT-Xent between two views; clients' models are averaged as in FedAvg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.updates.declaration import Json

NAME = "simclr"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SimClrConfig(AlignUniformConfig):
    """Settings: those of FedAlignUniform, with another objective (its choices: `nt_xent`)."""

    objective: Literal["simclr"] = "simclr"


class SimClr(AlignUniform):
    """The method; see `SimClrConfig` for its settings."""

    def __init__(self, config: SimClrConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=BASE_STATISTICS)


def create(config: Mapping[str, Json]) -> SimClr:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return SimClr(resolve(SimClrConfig, config))
