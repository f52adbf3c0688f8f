"""FedX on the align-and-uniform base: distillation at two levels, between views and from the received model.

FedX (Han et al., ECCV 2022, arXiv 2207.09158) has no server side of its own. Its client minimises, with projections g,
predictions p = predictor(g), the received model frozen (g*) and a second random batch r of the client as anchors,

    NT-Xent(g₁, g₂) + NT-Xent(p₁, g*₂) + relational(g₁, g₂; g_r) + relational(p₁, p₂; g*_r),

all at temperature 0.1 (the target of a relational term may have another). SSD compares with it on alignment and uniformity; that adaptation is unpublished. Our choices:

- Both contrastive terms become alignment plus β·uniformity. The local one is the base objective; the global one aligns
  the first view's prediction with the frozen projection of the second, and spreads the predictions.
- The relational terms are FedX's (`ssd.losses.relational`).
- The frozen model runs in evaluation mode, on the received BatchNorm statistics, as in the released code; where
  statistics stay on the client (`buffers = "local"`), on the client's.
- The projector is the family's, the predictor FedX's (no BatchNorm), and both are averaged.
- A weight for each of the three added terms; 1, as in FedX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ssd.losses.alignment import alignment
from ssd.losses.presets import AlignUniformLosses
from ssd.losses.relational import relational
from ssd.losses.uniformity import uniformity
from ssd.method.protocol import ClientTask
from ssd.methods.self_supervised.base import ENCODER, PROJECTOR, AlignUniform
from ssd.methods.self_supervised.config import AlignUniformConfig, embedding_dim, resolve
from ssd.methods.self_supervised.terms import Step, Term, statistic
from ssd.methods.self_supervised.training import BASE_STATISTICS
from ssd.models import predictor
from ssd.models.flat import BUFFERS, FlatModel
from ssd.updates.declaration import Json

NAME = "fedx"
VERSION = 1
PREDICTOR = "predictor"
PARTS = ("relation_local", "relation_global", "contrast_global")


@dataclass(frozen=True, kw_only=True, slots=True)
class FedXOptions:
    """Weights of the terms FedX adds, and their temperature. A term of weight 0 is computed but has no effect."""

    relation_local: float = 1.0
    relation_global: float = 1.0
    contrast_global: float = 1.0
    temperature: float = 0.1
    """Of the softmaxes over the anchors."""
    target_temperature: float | None = None
    """Of the softmaxes whose mean they are pulled to (`t2` in the released code); None: the same."""

    def __post_init__(self) -> None:
        for name, value in (
            ("temperature", self.temperature), ("target_temperature", self.target_temperature)
        ):  # fmt: skip
            if value is not None and value <= 0.0:
                raise ValueError(f"{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FedXConfig(AlignUniformConfig):
    """Settings of FedX."""

    fedx: FedXOptions = field(default_factory=FedXOptions)


@dataclass(frozen=True, slots=True)
class TwoLevelDistillation:
    """What FedX adds, as a term of the client objective of one visit."""

    options: FedXOptions
    losses: AlignUniformLosses
    predictor: nn.Module
    teacher: FlatModel
    """The received model; never trained."""
    needs_anchors: bool = True

    @property
    def weights(self) -> Mapping[str, float]:
        """See `Term.weights`."""
        return {part: getattr(self.options, part) for part in PARTS}

    def parts(self, step: Step) -> Mapping[str, Tensor]:
        """See `Term.parts`."""
        assert step.anchors is not None
        first, second = step.embeddings
        # One pass for both views: should a predictor ever have batch statistics, it sees them together.
        first_predicted, second_predicted = self.predictor(torch.cat(step.embeddings)).chunk(2)
        _, second_taught, anchors_taught = self._teach(step.views).chunk(3)
        heat = (self.options.temperature, self.options.target_temperature)
        aligned = alignment(first_predicted, second_taught, self.losses.alignment)
        spread = uniformity(first_predicted, self.losses.uniformity)
        return {
            "relation_local": relational(first, second, step.anchors, *heat),
            "relation_global": relational(first_predicted, second_predicted, anchors_taught, *heat),
            "contrast_global": aligned + self.losses.beta * spread,
        }

    @torch.no_grad()
    def _teach(self, views: Tensor) -> Tensor:
        """The received model's embeddings of all views and anchors."""
        representations: Tensor = self.teacher.parts[ENCODER](views)
        head = self.teacher.parts.get(PROJECTOR)
        return representations if head is None else head(representations)


class FedX(AlignUniform):
    """The method; see the module docstring and `FedXConfig` for its settings."""

    def __init__(self, config: FedXConfig) -> None:
        self._settings = config
        statistics = (*BASE_STATISTICS, *(statistic(part) for part in PARTS))
        super().__init__(NAME, VERSION, config, statistics=statistics)
        self._teachers: dict[torch.device, FlatModel] = {}

    def _skeletons(self) -> dict[str, nn.Module]:
        return {**super()._skeletons(), PREDICTOR: predictor.skeleton(embedding_dim(self._settings))}

    def _terms(self, task: ClientTask, model: FlatModel) -> tuple[Term, ...]:
        device = model.trainable.device
        if device not in self._teachers:
            self._teachers[device] = FlatModel(self._parts(), self._settings.buffers, device)
        teacher = self._teachers[device]
        local = task.state.get(BUFFERS)
        teacher.load(task.base, None if local is None else np.asarray(local, dtype=np.float32))
        for module in teacher.parts.values():
            module.eval()
        return (
            TwoLevelDistillation(self._settings.fedx, self._settings.losses, model.parts[PREDICTOR], teacher),
        )


def create(config: Mapping[str, Json]) -> FedX:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return FedX(resolve(FedXConfig, config))
