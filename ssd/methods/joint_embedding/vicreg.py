"""VICReg (arXiv 2105.04906): invariance, variance and covariance of two views; clients' models are averaged as in FedAvg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.updates.declaration import Json

NAME = "vicreg"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class VicRegConfig(AlignUniformConfig):
    """Settings: those of FedAlignUniform, with another objective (its choices: `vicreg`)."""

    objective: Literal["vicreg"] = "vicreg"


class VicReg(AlignUniform):
    """The method; see `VicRegConfig` for its settings."""

    def __init__(self, config: VicRegConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=BASE_STATISTICS)


def create(config: Mapping[str, Json]) -> VicReg:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return VicReg(resolve(VicRegConfig, config))
