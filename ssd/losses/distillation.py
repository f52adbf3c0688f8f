"""Projector distillation (PD): keep representation h and embedding z close, so that what DSR does to z reaches h.

SSD (arXiv 2508.01251), Eq. 9 and Fig. 3: KL(σ(h) ‖ σ(z)), coordinate-wise softmax, no temperature. The official
code computes the other direction, KL(σ(z/τ) ‖ σ(h/τ)) with τ = 0.5 and no τ² factor. Neither stops a gradient and
both use raw vectors. Appendix B also tries the mean squared difference, which has the better linear probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import log_softmax, normalize


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationOptions:
    """Choices of the distillation term; the defaults are the official code's."""

    divergence: Literal["kl_z_h", "kl_h_z", "mse"] = "kl_z_h"
    """`kl_z_h`: KL(σ(z) ‖ σ(h)), official; `kl_h_z`: KL(σ(h) ‖ σ(z)), Eq. 9; `mse`: appendix B."""
    temperature: float = 0.5
    """τ of both softmaxes (official 0.5, paper 1); unused by `mse`."""
    stop_gradient: Literal["none", "h", "z"] = "none"
    """Which side is a constant; none in the paper and the code."""
    normalise: bool = False
    """Put both vectors on the unit sphere first; not done in the paper or the code."""


def divergence(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """KL(σ(a/τ) ‖ σ(b/τ)) with the softmax over coordinates, mean over the batch; [N, D] each -> scalar."""
    log_first = log_softmax(first / temperature, dim=1)
    log_second = log_softmax(second / temperature, dim=1)
    return (log_first.exp() * (log_first - log_second)).sum(dim=1).mean()


def distillation(representations: Tensor, embeddings: Tensor, options: DistillationOptions) -> Tensor:
    """L_distill, Eq. 9 (or the official code's form of it), for one view.

    Args:
        representations: [N, D] encoder outputs h.
        embeddings: [N, D] projector outputs z of the same rows.
        options: which reading.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: h and z differ in shape; the term compares them coordinate by coordinate.

    """
    if representations.shape != embeddings.shape:
        raise ValueError(
            f"distillation compares h and z coordinate by coordinate, but h is {tuple(representations.shape)} "
            f"and z is {tuple(embeddings.shape)}: set the projector's out_dim to the model's feature_dim"
        )
    if options.normalise:
        representations, embeddings = normalize(representations, dim=1), normalize(embeddings, dim=1)
    if options.stop_gradient == "h":
        representations = representations.detach()
    elif options.stop_gradient == "z":
        embeddings = embeddings.detach()
    if options.divergence == "mse":
        return (representations - embeddings).square().mean()
    if options.divergence == "kl_z_h":
        return divergence(embeddings, representations, options.temperature)
    return divergence(representations, embeddings, options.temperature)
