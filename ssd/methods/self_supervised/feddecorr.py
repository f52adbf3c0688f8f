"""FedDecorr on the align-and-uniform base: every client also decorrelates the dimensions of its batch's features.

FedDecorr (ICLR 2023, arXiv 2210.00226) adds `coefficient` times a decorrelation penalty to supervised FedAvg, on the
features before the classifier, with coefficient 0.1. SSD compares with it on alignment and uniformity; its code for
that is unpublished, but its run names give the coefficient 0.01. Our choices:

- Features: z (the projector's output), the vector alignment and uniformity act on; h is the literal counterpart of
  FedDecorr's features and one setting away. Which of them SSD used is unknown.
- The released form of the penalty (see `ssd.losses.decorrelation`), from which SSD's ancestor code copied it.
- Averaged over the two views, like every one-view term of the objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ssd.losses.decorrelation import DecorrelationOptions, decorrelation
from ssd.losses.objective import mean_of_views
from ssd.method.protocol import ClientTask
from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.terms import Step, Term, statistic
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.models.flat import FlatModel
from ssd.updates.declaration import Json

NAME = "feddecorr"
VERSION = 1
PART = "decorrelation"


@dataclass(frozen=True, kw_only=True, slots=True)
class FedDecorrConfig(AlignUniformConfig):
    """Settings of FedDecorr."""

    coefficient: float = 0.01
    """Weight of the penalty: 0.01 in SSD's comparison, 0.1 in the original."""
    features: Literal["z", "h"] = "z"
    decorrelation: DecorrelationOptions = field(default_factory=DecorrelationOptions)


@dataclass(frozen=True, slots=True)
class Decorrelation:
    """The penalty as a term of the client objective."""

    config: FedDecorrConfig
    needs_anchors: bool = False

    @property
    def weights(self) -> Mapping[str, float]:
        """See `Term.weights`."""
        return {PART: self.config.coefficient}

    def parts(self, step: Step) -> Mapping[str, Tensor]:
        """See `Term.parts`."""
        pair = step.embeddings if self.config.features == "z" else step.representations
        return {PART: mean_of_views(*(decorrelation(view, self.config.decorrelation) for view in pair))}


class FedDecorr(AlignUniform):
    """The method; see the module docstring and `FedDecorrConfig` for its settings."""

    def __init__(self, config: FedDecorrConfig) -> None:
        super().__init__(NAME, VERSION, config, statistics=(*BASE_STATISTICS, statistic(PART)))
        self._term = Decorrelation(config)

    def _terms(self, task: ClientTask, model: FlatModel) -> tuple[Term, ...]:
        return (self._term,)


def create(config: Mapping[str, Json]) -> FedDecorr:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return FedDecorr(resolve(FedDecorrConfig, config))
