"""L-DAWA on the align-and-uniform base: only the server differs (Rehman et al., ICCV 2023).

Clients train as in FedAlignUniform; the server weighs every layer of every client by its angle to the global layer
(`ssd.methods.server_steps.angular`). SSD compares with it; its adaptation is unpublished. Our choices: the projector is
aggregated like the encoder; BatchNorm statistics are averaged plainly instead of being weighed as layers (an angle
between variances says nothing about training, and a variance must not shrink). `scope = "model"` is the variant with one
cosine for the whole network that FedU2's code calls L-DAWA; `normalise` is an extra of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ssd.method.protocol import Reduction, ReductionResult
from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.methods.server_steps.angular import Scope, angular_mean
from ssd.models.flat import BufferPolicy
from ssd.updates.declaration import Json

NAME = "ldawa"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LDawaConfig(AlignUniformConfig):
    """Settings of L-DAWA."""

    buffers: BufferPolicy = "averaged"
    """L-DAWA does not weigh clients by their data; the rest of the family has `weighted`."""
    scope: Scope = "layer"
    """One cosine per tensor, or one per client for all parameters."""
    normalise: bool = False
    """Divide by the sum of the cosines, so that weights cannot shrink (not in L-DAWA)."""


class LDawa(AlignUniform):
    """The method; see the module docstring and `LDawaConfig` for its settings."""

    collects_parameters = True

    def __init__(self, config: LDawaConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=BASE_STATISTICS)
        self._settings = config

    def after_reduce(self, reduction: Reduction) -> ReductionResult:
        """See `ServerHook.after_reduce`."""
        made = angular_mean(
            reduction,
            self._spec,
            self._trained_groups(),
            scope=self._settings.scope,
            normalise=self._settings.normalise,
        )
        metrics = {"angular_mean": made.mean_cosine, "angular_least": made.least_cosine}
        return ReductionResult(delta=made.delta, metrics=metrics)


def create(config: Mapping[str, Json]) -> LDawa:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return LDawa(resolve(LDawaConfig, config))
