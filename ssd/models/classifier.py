"""A classifier with named cut points: features = backbone(images), logits = head(features).

What works on representations (distilling a backbone, running a head from generated features) goes through here and
so works with every backbone of the registry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

BACKBONE, HEAD = "backbone", "head"


def head_skeleton(feature_dim: int, classes: int) -> nn.Module:
    """[B, feature_dim] -> [B, classes] logits: one affine map, on the meta device."""
    with torch.device("meta"):
        return nn.Linear(feature_dim, classes)


@dataclass(frozen=True, slots=True)
class Classifier:
    """A backbone and a head on one device."""

    backbone: nn.Module
    head: nn.Module
    mixed_precision: bool = False
    """bfloat16 inside the modules on CUDA; what comes out is float32."""

    def features(self, images: Tensor) -> Tensor:
        """[B, D] float32 representations of prepared images [B, C, S, S]."""
        return self._run(self.backbone, images)

    def logits(self, features: Tensor) -> Tensor:
        """[B, classes] float32 from representations [B, D], wherever those come from."""
        return self._run(self.head, features)

    def __call__(self, images: Tensor) -> Tensor:
        """[B, classes] float32 logits of prepared images."""
        return self.logits(self.features(images))

    def _run(self, module: nn.Module, values: Tensor) -> Tensor:
        mixed = self.mixed_precision and values.device.type == "cuda"
        with torch.autocast(values.device.type, dtype=torch.bfloat16, enabled=mixed):
            output: Tensor = module(values)
        return output.float()
