"""The arguments and the result of a supervised method's loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssd.method.protocol import ClientTask
from ssd.methods.self_supervised.training import Seeds
from ssd.models.classifier import Classifier
from ssd.models.flat import FlatModel


@dataclass(frozen=True, slots=True)
class Batch:
    """One mini-batch on the training device."""

    images: Tensor
    """[B, C, S, S] float32, augmented and normalised."""
    labels: Tensor
    """[B] int64."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The result of a method's loss for one batch."""

    value: Tensor
    """Scalar; its gradient trains the model."""
    logits: Tensor
    """[B, classes] for the real images: the accuracy in training is counted from them."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Exactly the method's `terms`: scalars that are reported, here before they are weighted."""


@dataclass
class Context:
    """One client's visit. Made anew for every visit; a method may keep things in `own`."""

    task: ClientTask
    """Round, scheduled values, artefacts, the client's state; `base` is the received vector."""
    model: Classifier
    """The model in training."""
    received: Tensor
    """[s] the travelling parameters as they were received, on the device. Only to be read."""
    labels: Tensor
    """[N] int64, all labels of the client, on the CPU."""
    flat: FlatModel
    """The same model as one vector."""
    frozen: Callable[[], Classifier]
    seeds: Seeds
    own: Any = None
    """Whatever the method's `begin` returned."""
    step: int = 0
    """0-based step of the visit."""
    _teacher: Classifier | None = field(default=None, init=False)
    _generators: dict[str, torch.Generator] = field(default_factory=dict, init=False)

    @property
    def device(self) -> torch.device:
        """Where the model and the batches are."""
        return self.received.device

    def weights(self) -> Tensor:
        """[s] the travelling parameters in training as one vector through which gradients flow; see `received`."""
        return torch.cat([parameter.reshape(-1) for parameter in self.flat.shared_parameters()])

    def teacher(self) -> Classifier:
        """The model as it was received, in evaluation mode and without gradients; made at the first call.

        Parts and statistics that do not travel are the client's, as they were at the start of the visit.
        """
        if self._teacher is None:
            self._teacher = self.frozen()
        return self._teacher

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for the method's own randomness, the same one at every call of a visit.

        It depends on run, round, client and `purpose` alone: what one term draws never shifts another's draws, nor
        the order of the images or their augmentation.
        """
        if purpose not in self._generators:
            self._generators[purpose] = self.seeds.generator(f"method/{purpose}")
        return self._generators[purpose]
