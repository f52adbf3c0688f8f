"""The projector g of SSD: Linear, BatchNorm, ReLU, Linear (paper A.1). Thrown away after training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ssd.models.allocate import allocated
from ssd.models.initialise import initialise


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectorConfig:
    """The sizes of the projector."""

    hidden_dim: int | None = None
    """None: four times the feature dimension (512 -> 2048 in the paper)."""
    out_dim: int | None = None
    """None: the feature dimension, which distillation needs."""

    def resolved(self, feature_dim: int) -> ProjectorConfig:
        """The same configuration with every None replaced by its default.

        Raises:
            ValueError: a dimension is not positive.

        """
        hidden = self.hidden_dim if self.hidden_dim is not None else 4 * feature_dim
        out = self.out_dim if self.out_dim is not None else feature_dim
        if hidden < 1 or out < 1:
            raise ValueError(f"projector dimensions must be positive, got hidden_dim={hidden}, out_dim={out}")
        return ProjectorConfig(hidden_dim=hidden, out_dim=out)


def skeleton(feature_dim: int, config: ProjectorConfig) -> nn.Sequential:
    """[B, feature_dim] -> [B, out_dim], on the meta device: shapes and names, no memory, no randomness."""
    sizes = config.resolved(feature_dim)
    assert sizes.hidden_dim is not None
    assert sizes.out_dim is not None
    with torch.device("meta"):
        return nn.Sequential(
            nn.Linear(feature_dim, sizes.hidden_dim),
            nn.BatchNorm1d(sizes.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(sizes.hidden_dim, sizes.out_dim),
        )


def build_initialised(feature_dim: int, config: ProjectorConfig, seed: int) -> nn.Module:
    """The projector on the CPU with initial weights drawn from `seed`."""
    head = allocated(skeleton(feature_dim, config))
    initialise(head, torch.Generator().manual_seed(seed))
    return head
