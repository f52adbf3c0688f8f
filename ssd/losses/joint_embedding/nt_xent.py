"""NT-Xent, the loss of SimCLR (Chen et al., ICML 2020, arXiv 2002.05709, Eq. 1).

Every view has to be told from the 2 N - 2 views of other images: the cross entropy of its similarities to all others,
where the right answer is the other view of its own image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class NtXentOptions:
    """Choices of NT-Xent."""

    temperature: float = 0.5
    """Divides the cosine similarities; the paper takes 0.5 for CIFAR-10 (appendix B.9)."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")


def nt_xent(first: Tensor, second: Tensor, options: NtXentOptions) -> Tensor:
    """The mean over all 2 N views of -log(exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ)), s the cosine similarity.

    Args:
        first: [N, D] embeddings of one view of N >= 2 images.
        second: [N, D] embeddings of the other.
        options: the temperature.

    Raises:
        ValueError: one image, which has nothing to be told from.
    """
    count = first.shape[0]
    if count < 2:
        raise ValueError("NT-Xent needs at least two images, which are told from each other")
    views = normalize(torch.cat([first, second]), dim=1)
    similarities = views @ views.T / options.temperature
    own = torch.eye(2 * count, dtype=torch.bool, device=views.device)
    partners = torch.arange(2 * count, device=views.device).roll(count)
    return cross_entropy(similarities.masked_fill(own, -torch.inf), partners)
