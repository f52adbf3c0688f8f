"""Local training for comparison: every client always goes on from its own model (`start = "own"`).

The objective and the networks are FedAlignUniform's. What a client sends is its model minus the received one, so an
averaged model exists as a by-product; no client ever starts from it and it means nothing. What counts is each client's
state, the model it keeps. The opposite comparison, training on everybody's images in one place, needs no method: it is
`fed_align_uniform` with a partition into one client.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.settings import SettingsError
from ssd.updates.declaration import Json

NAME = "local_only_ssl"
VERSION = 1


class LocalOnly(AlignUniform):
    """The method; see the module docstring and `AlignUniformConfig` for its settings."""

    def __init__(self, config: AlignUniformConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=BASE_STATISTICS)


def create(config: Mapping[str, Json]) -> LocalOnly:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    settings = resolve(AlignUniformConfig, {"start": "own", **config})
    if settings.start != "own":
        raise SettingsError([f'config.start is "own" in {NAME}; for "received" use fed_align_uniform'])
    return LocalOnly(settings)
