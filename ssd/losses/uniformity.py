"""Uniformity: embeddings should spread evenly over the sphere.

Wang & Isola (arXiv 2005.10242); Eq. 4 of SSD (arXiv 2508.01251). The project page and the poster print Eq. 4
with a leading minus, the wrong sign for something minimised; the paper and its code have it as here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformityOptions:
    """Choices of the uniformity term."""

    t: float = 2.0
    """Sharpness of the Gaussian potential; the paper gives none, the official code uses 2."""
    normalise: bool = True
    """Put the embeddings on the unit sphere first."""


def uniformity(embeddings: Tensor, options: UniformityOptions) -> Tensor:
    """Log E exp(−t ‖z_i − z_j‖²) over all pairs of different rows, Eq. 4.

    Args:
        embeddings: [N, D] embeddings of one view of N different images, N >= 2.
        options: sharpness and normalisation.

    Returns:
        A scalar <= 0; smaller is more uniform (about −2t for points far apart on the sphere).

    Raises:
        ValueError: fewer than two rows, which form no pair.

    """
    count = embeddings.shape[0]
    if count < 2:
        raise ValueError(f"uniformity needs at least two embeddings, got {count}")
    if options.normalise:
        embeddings = normalize(embeddings, dim=1)
    # The Gram form costs one matrix product where a pairwise loop costs N²·D memory traffic.
    norms = embeddings.square().sum(dim=1)
    distances = norms[:, None] + norms[None, :] - 2.0 * (embeddings @ embeddings.T)
    same = torch.eye(count, dtype=torch.bool, device=embeddings.device)
    exponents = (-options.t * distances).masked_fill(same, -math.inf)
    return torch.logsumexp(exponents.flatten(), dim=0) - math.log(count * (count - 1))
