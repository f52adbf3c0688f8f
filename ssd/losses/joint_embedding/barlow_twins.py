"""Barlow Twins (Zbontar et al., ICML 2021, arXiv 2103.03230, Eq. 1): the views' correlation matrix shall be the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-5
"""Under the root of every variance, as in BatchNorm: a dimension may be constant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarlowTwinsOptions:
    """Choices of Barlow Twins."""

    redundancy: float = 5e-3
    """Weight of what is off the diagonal, λ of the paper."""
    scale: float = 1.0 / 32.0
    """Factor on the whole. The loss grows with D; without a factor (1) plain SGD needs a lower learning rate than the other
    objectives here."""


def barlow_twins(first: Tensor, second: Tensor, options: BarlowTwinsOptions) -> Tensor:
    """Scale · (Σ_i (1 - C_ii)² + λ · Σ_i Σ_{j≠i} C_ij²), C the cross-correlation of the views over the batch.

    Args:
        first: [N, D] embeddings of one view of N >= 2 images.
        second: [N, D] embeddings of the other.
        options: weights.

    Raises:
        ValueError: one image, which has no correlation.
    """
    count = first.shape[0]
    if count < 2:
        raise ValueError("Barlow Twins needs at least two images, whose correlation it looks at")
    correlation = _standard(first).T @ _standard(second) / count
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return options.scale * ((1.0 - diagonal).square().sum() + options.redundancy * others)


def _standard(view: Tensor) -> Tensor:
    """Every dimension with mean 0 and, over the batch, variance 1."""
    centred = view - view.mean(dim=0)
    return centred / torch.sqrt(centred.square().mean(dim=0) + EPSILON)
