"""FedProx: FedAvg whose clients are held near the received model (Li et al., MLSys 2020, arXiv 1812.06127).

Each client minimises its own loss plus (mu / 2) · ‖w − w_received‖² over the parameters that travel. The paper tunes
mu in {0.001, 0.01, 0.1, 1}. The FedProx baseline in FedGen's official code is stronger than its name says: mu is that
program's `lamda` flag, 1 by default, and an L2 penalty of 0.001 comes on top (here: `mu = 1`, `weight_decay = 0.001`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ssd.methods.supervised.base import Batch, Context, Loss, Supervised, SupervisedConfig, resolve
from ssd.updates.declaration import Json

NAME = "fedprox"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FedProxConfig(SupervisedConfig):
    """Settings of FedProx."""

    mu: float = 0.01
    """Strength of the proximal term; 0 is FedAvg, bit for bit."""

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        if self.mu < 0.0:
            raise ValueError(f"mu must not be negative, got {self.mu}")


class FedProx(Supervised[FedProxConfig]):
    """FedAvg with a proximal term in every client's loss."""

    def __init__(self, config: FedProxConfig) -> None:
        super().__init__(NAME, VERSION, config)
        self.terms = ("proximal",) if config.mu else ()

    def loss(self, batch: Batch, context: Context) -> Loss:
        """Cross-entropy plus (mu / 2) · ‖w − w_received‖²; the term `proximal` is the squared distance."""
        loss = super().loss(batch, context)
        if not self.config.mu:
            return loss
        distance = (context.weights() - context.received).square().sum()
        return replace(loss, value=loss.value + 0.5 * self.config.mu * distance, terms={"proximal": distance})


def create(config: Mapping[str, Json]) -> FedProx:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return FedProx(resolve(FedProxConfig, config))
