"""Alignment: two views of one image should have the same embedding.

Wang & Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
Hypersphere* (arXiv 2005.10242); Eq. 3 of SSD (arXiv 2508.01251).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentOptions:
    """Choices of the alignment term."""

    normalise: bool = True
    """Put the embeddings on the unit sphere first (the paper's setting and the official code)."""


def alignment(first: Tensor, second: Tensor, options: AlignmentOptions) -> Tensor:
    """E ‖z − z⁺‖², Eq. 3.

    Args:
        first: [N, D] embeddings of one view.
        second: [N, D] embeddings of the other view, row for row of the same images.
        options: whether to normalise the rows.

    Returns:
        A scalar; 0 to 4 on the unit sphere.

    """
    if options.normalise:
        first, second = normalize(first, dim=1), normalize(second, dim=1)
    return (first - second).square().sum(dim=1).mean()
