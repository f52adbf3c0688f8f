"""VICReg (Bardes, Ponce and LeCun, ICLR 2022, arXiv 2105.04906): invariance, variance, covariance.

The paper (Eq. 6) adds the squared distance ‖z - z'‖² of a pair and, for each view, a hinge on every dimension's standard
deviation and the squared covariances between dimensions. The released code takes the mean over the D coordinates in
place of the squared distance, and half of the two views' variance terms. `form` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4
"""Under the root of every variance (Eq. 2)."""
TARGET = 1.0
"""Standard deviation below which a dimension is pushed apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VicRegOptions:
    """Choices of VICReg; the weights are the paper's."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    form: Literal["released", "paper"] = "released"


def vicreg(first: Tensor, second: Tensor, options: VicRegOptions) -> Tensor:
    """λ · invariance + μ · variance + ν · covariance of two views' embeddings, not normalised.

    Args:
        first: [N, D] embeddings of one view of N >= 2 images.
        second: [N, D] embeddings of the other.
        options: weights and form.

    Raises:
        ValueError: one image, which has no variance.
    """
    if first.shape[0] < 2:
        raise ValueError("VICReg needs at least two images, whose variance it looks at")
    released = options.form == "released"
    squared = (first - second).square()
    invariance = squared.mean() if released else squared.sum(dim=1).mean()
    variance = _hinge(first) + _hinge(second)
    return (
        options.invariance * invariance
        + options.variance * (0.5 * variance if released else variance)
        + options.covariance * (_covariances(first) + _covariances(second))
    )


def _hinge(view: Tensor) -> Tensor:
    """Mean over the dimensions of max(0, 1 - standard deviation), Eq. 1."""
    return (TARGET - torch.sqrt(view.var(dim=0) + EPSILON)).clamp(min=0.0).mean()


def _covariances(view: Tensor) -> Tensor:
    """Sum of squared covariances of different dimensions over D, Eq. 4."""
    centred = view - view.mean(dim=0)
    covariance = centred.T @ centred / (view.shape[0] - 1)
    everything, own = covariance.square().sum(), covariance.diagonal().square().sum()
    return (everything - own) / view.shape[1]
