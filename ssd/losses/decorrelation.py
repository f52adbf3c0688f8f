"""Decorrelation: no feature dimension should be predictable from another, or the representation collapses.

FedDecorr (Shi et al., ICLR 2023, arXiv 2210.00226): the paper penalises ‖K‖²_F / D² with K the correlation matrix of
a batch's features; the released code (`bytedance/FedDecorr`, MIT) standardises the columns, takes XᵀX, which is N − 1
times K, and divides the mean of its squared off-diagonal entries by N. That is (N − 1)²/N, about N, times the mean
squared correlation: its strength grows with the batch. Both are options. (The paper's norm includes the diagonal, a
constant, which is left out here.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to every variance: a dead dimension of a ReLU has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecorrelationOptions:
    """Choices of the decorrelation term."""

    form: Literal["released", "correlation"] = "released"
    """`released`: mean off-diagonal (XᵀX)² / N; `correlation`: mean squared off-diagonal correlation."""


def decorrelation(features: Tensor, options: DecorrelationOptions) -> Tensor:
    """How correlated the dimensions of a batch are.

    Args:
        features: [N, D] with N >= 2 and D >= 2.
        options: which scale.

    Returns:
        A scalar >= 0; 0 to 1 in the form `correlation`.

    Raises:
        ValueError: fewer than two rows or dimensions, which have no correlation.

    """
    count, size = features.shape
    if count < 2 or size < 2:
        raise ValueError(f"correlation needs at least two rows and two dimensions, got {count} and {size}")
    centred = features - features.mean(dim=0, keepdim=True)
    standard = centred / torch.sqrt(EPSILON + centred.var(dim=0, keepdim=True))
    products = standard.T @ standard
    off_diagonal = products.masked_fill(torch.eye(size, dtype=torch.bool, device=features.device), 0.0)
    mean_square = off_diagonal.square().sum() / (size * (size - 1))
    if options.form == "released":
        return mean_square / count
    return mean_square / (count - 1) ** 2
