"""FedX's predictor: Linear, ReLU, Linear on the embedding, all of its length; thrown away with the projector."""

from __future__ import annotations

import torch
from torch import nn


def skeleton(dim: int) -> nn.Sequential:
    """[B, dim] -> [B, dim], on the meta device: shapes and names, no memory, no randomness."""
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim))
