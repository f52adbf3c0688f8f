"""FedU2 on the align-and-uniform base: a uniform regulariser on the client, a common step on the server.

FedU2 (CVPR 2024, arXiv 2403.16398) adds to any self-supervised client loss the flexible uniform regulariser FUR
(`ssd.losses.flexible_uniform`), and aggregates with the efficient unified aggregator EUA
(`ssd.methods.server_steps.common_descent`). Either can be left out: `fur.coefficient = 0`, `eua = false`. SSD compares with it on
alignment and uniformity; that code is unpublished, but its run names give FUR's coefficient, 0.01. Our choices:

- FUR acts on z, which the rest of the objective acts on, as in FedU2's released code, in that code's form and on its
  schedule: in every step of every round with the constant weight 0.01.
- Encoder and projector are stepped as one vector; BatchNorm statistics are averaged plainly
  (`buffers = "averaged"`), as in FedU2's released code; SSD's own code weighs them.
- The length of EUA's step is the mean length of the clients' updates unless `server_rate` gives the released code's
  rate; the min-norm problem is solved to the end. The released code sharpens the data weights (power 1/0.36) it starts
  its solver from; ours starts from the plain weights, which the solution hardly depends on.
- No rotation-prediction head, which is optional there and changes the views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssd.losses.flexible_uniform import FlexibleUniformOptions, flexible_uniform
from ssd.method.protocol import ClientTask, Reduction, ReductionResult
from ssd.methods.self_supervised.base import AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, resolve
from ssd.methods.self_supervised.terms import Step, Term, statistic
from ssd.methods.self_supervised.training import BASE_STATISTICS, Seeds
from ssd.methods.server_steps.common_descent import common_descent
from ssd.models.flat import BufferPolicy, FlatModel
from ssd.updates.declaration import Json

NAME = "fedu2"
VERSION = 1
PART = "fur"


@dataclass(frozen=True, kw_only=True, slots=True)
class FurOptions(FlexibleUniformOptions):
    """The regulariser and its weight."""

    coefficient: float = 0.01
    """Weight in the client objective; 0 leaves the term out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FedU2Config(AlignUniformConfig):
    """Settings of FedU2."""

    fur: FurOptions = field(default_factory=FurOptions)
    buffers: BufferPolicy = "averaged"
    """As in FedU2's released code; the rest of the family has `weighted`."""
    eua: bool = True
    """False: the weighted mean of FedAvg."""
    server_rate: float | None = None
    """The released code's rate of the server's SGD step (8 in its example); None: a step as long as the clients'."""

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is rebuilt, and the bare form would look in the class before that.
        AlignUniformConfig.__post_init__(self)
        if self.server_rate is not None and self.server_rate <= 0.0:
            raise ValueError(f"server_rate must be positive, got {self.server_rate}")


@dataclass(frozen=True, slots=True)
class FlexibleUniform:
    """FUR as a term of the client objective of one visit."""

    options: FurOptions
    generator: torch.Generator
    needs_anchors: bool = False

    @property
    def weights(self) -> Mapping[str, float]:
        """See `Term.weights`."""
        return {PART: self.options.coefficient}

    def parts(self, step: Step) -> Mapping[str, Tensor]:
        """See `Term.parts`."""
        first, second = (flexible_uniform(view, self.options, self.generator) for view in step.embeddings)
        return {PART: first + second if self.options.form == "released" else 0.5 * (first + second)}


class FedU2(AlignUniform):
    """The method; see the module docstring and `FedU2Config` for its settings."""

    def __init__(self, config: FedU2Config) -> None:
        self._regularised = config.fur.coefficient != 0.0
        added = (statistic(PART),) if self._regularised else ()
        super().__init__(NAME, VERSION, config, statistics=(*BASE_STATISTICS, *added))
        self._settings = config
        self.collects_parameters = config.eua

    def _terms(self, task: ClientTask, model: FlatModel) -> tuple[Term, ...]:
        if not self._regularised:
            return ()
        seeds = Seeds(run_seed=task.run_seed, round=task.round, client_id=task.client_id)
        return (FlexibleUniform(self._settings.fur, seeds.generator("fur")),)

    def after_reduce(self, reduction: Reduction) -> ReductionResult:
        """See `ServerHook.after_reduce`; only called with `eua`."""
        made = common_descent(
            reduction, self._spec, self._trained_groups(), server_rate=self._settings.server_rate
        )
        return ReductionResult(
            delta=made.delta, metrics={"eua_agreement": made.agreement, "eua_step": made.step}
        )


def create(config: Mapping[str, Json]) -> FedU2:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return FedU2(resolve(FedU2Config, config))
