"""Diversity: different noise should give different latent vectors.

The mode-seeking term of Mao et al. (2019) in the form of FedGen's official code (the main text of arXiv 2105.10056
names the term but gives no formula).
"""

from __future__ import annotations

import torch
from torch import Tensor


def diversity(noise: Tensor, latents: Tensor) -> Tensor:
    """exp(−mean_ij msd(ε_i, ε_j) · mad(z_i, z_j)) over all pairs of rows, the diagonal included.

    msd is the mean squared difference over the noise dimensions, mad the mean absolute difference over the latent
    ones. Minimising it moves latent vectors of unlike noise apart.

    Args:
        noise: [B, E] the generator's noise ε.
        latents: [B, D] what it made of it, z.

    Returns:
        A scalar in (0, 1].

    """
    noise_distance = (noise[:, None] - noise[None]).square().mean(dim=2)
    latent_distance = (latents[:, None] - latents[None]).abs().mean(dim=2)
    return torch.exp(-(noise_distance * latent_distance).mean())
