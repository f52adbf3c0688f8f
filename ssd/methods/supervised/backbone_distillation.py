"""Backbone self-distillation in the style of FedBSD (Wang et al., ACM MM Asia 2023, arXiv 2409.15636).

Clients share a backbone and keep a head of their own. A client minimises L_CE + λ · L_BSD, where L_BSD draws the
features of its backbone towards those of the received one, the frozen teacher. Only backbones are averaged.

"In the style of", not a reproduction: from public sources only the split, the plain mean and the sum above are known.
Each of the following is *our* choice, an option wherever the paper may have chosen otherwise:

- `divergence`: KL(softmax(f_teacher / T) ‖ softmax(f_student / T)) over the features, without a factor T², or the mean
  over the batch of the squared distance ‖f_teacher − f_student‖²;
- `strength` (λ, 1) and `temperature` (T, 1);
- `restart`: `R1` starts every visit from the received backbone, so the term is an anchor in feature space; with `R2`
  the client goes on from its own backbone of its last visit and takes the received one for a teacher only;
- `training`: head and backbone together, or `alternating`, as FedRep does (arXiv 2102.07078): the head for `head_epochs`
  passes first, then the backbone for the visit's epochs or steps;
- the teacher runs in evaluation mode (running BatchNorm statistics), the student in training mode, so the term is not
  zero even before the first step;
- a new client's head is drawn from the run's seed and the client's identity; BatchNorm statistics are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssd.losses.distillation import divergence
from ssd.methods.self_supervised.training import batch_sizes
from ssd.methods.supervised.base import Batch, Context, Loss, Supervised, SupervisedConfig, resolve
from ssd.methods.supervised.training import Phase, steps_of_visit
from ssd.models.classifier import BACKBONE, HEAD
from ssd.models.flat import FlatModel
from ssd.updates.declaration import Json

NAME = "backbone_distillation"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneDistillationConfig(SupervisedConfig):
    """Settings of backbone self-distillation; see the top of this module."""

    head: Literal["shared", "private"] = "private"
    weighting: Literal["images", "batches", "uniform"] = "uniform"
    strength: float = 1.0
    """λ; 0 with a shared head is FedAvg, bit for bit."""
    divergence: Literal["kl", "l2"] = "kl"
    temperature: float = 1.0
    """T of both softmaxes; unused by `l2`."""
    restart: Literal["R1", "R2"] = "R1"
    training: Literal["joint", "alternating"] = "joint"
    head_epochs: int = 1
    """With `alternating`: passes over the images for the head."""

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        if self.strength < 0.0:
            raise ValueError(f"strength must not be negative, got {self.strength}")
        if self.temperature <= 0.0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.head_epochs < 1:
            raise ValueError(f"head_epochs must be at least 1, got {self.head_epochs}")


def backbone_loss(teacher: Tensor, student: Tensor, config: BackboneDistillationConfig) -> Tensor:
    """L_BSD of [B, D] features, a scalar >= 0; gradients are wanted of the student only."""
    if config.divergence == "kl":
        return divergence(teacher, student, config.temperature)
    return (teacher - student).square().sum(dim=1).mean()


class BackboneDistillation(Supervised[BackboneDistillationConfig]):
    """Holds a client's backbone near a teacher backbone; the head can stay private."""

    def __init__(self, config: BackboneDistillationConfig) -> None:
        super().__init__(NAME, VERSION, config)
        self.terms = ("distillation",) if config.strength else ()
        self.resumes = config.restart == "R2"

    def loss(self, batch: Batch, context: Context) -> Loss:
        """Cross-entropy plus λ times the distance of the features from the teacher's."""
        features = context.model.features(batch.images)
        logits = context.model.logits(features)
        error = cross_entropy(logits, batch.labels)
        if not self.config.strength:
            return Loss(error, logits)
        with torch.no_grad():
            target = context.teacher().features(batch.images)
        distance = backbone_loss(target, features, self.config)
        return Loss(error + self.config.strength * distance, logits, {"distillation": distance})

    def phases(self, model: FlatModel, count: int) -> Sequence[Phase]:
        """The head first, then the backbone; or both together."""
        if self.config.training == "joint":
            return super().phases(model, count)
        passes = self.config.head_epochs * len(batch_sizes(count, self.config))
        steps = steps_of_visit(count, self.config)
        return (Phase(model.where(HEAD), passes), Phase(model.where(BACKBONE), steps))


def create(config: Mapping[str, Json]) -> BackboneDistillation:
    """The method of a configuration.

    Raises:
        SettingsError: listing everything that is wrong with it.

    """
    return BackboneDistillation(resolve(BackboneDistillationConfig, config))
