"""Dimension-scaled regularisation (DSR): pull a client's embeddings towards its own dimensions.

SSD (arXiv 2508.01251), Eq. 6-8: client k's scaling vector d_k is α on its dimensions S_k and 1 elsewhere, and
L_DSR = E ‖z − sg(z ⊙ d_k)‖². Eq. 7 has no normalisation although the sentence that explains it scales and
*then* normalises to the sphere. The official code normalises before and after, takes the Frobenius norm of the
whole difference (not squared) over N, and scales in a shared randomly rotated basis Q. Each is an option here.

The code stores Q with the columns of S_k multiplied by √w and applies that matrix twice (B·Bᵀ), so what acts on
the embedding is w itself: its w = 10 is the paper's α = 10, not 100.

On random unit vectors (D = 512, α = 10, N = 128; 51 or 10 scaled dimensions) the readings differ by two orders
of magnitude: official 0.081 / 0.068, squared mean with a normalised target 0.85 / 0.60, as printed 8.1 / 1.6.
The paper's own Fig. 4 shows 0.065 to 0.074, which only the official form can produce.

*Hard separation* (HSD in §3 and Fig. 6b) confines each client to a subspace of its own; neither the paper nor the
code gives a formula. Our reading keeps the regulariser and moves its target: z is pulled to its orthogonal
projection on the client's own dimensions, put back on the sphere (the limit of the normalised soft target as
α → ∞). The value of α has no effect then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssd.scaling import ScalingVector


@dataclass(frozen=True, kw_only=True, slots=True)
class DimensionScaledOptions:
    """Choices of the regulariser; the defaults are the official code's."""

    normalise_input: bool = True
    """Put z on the unit sphere before anything else."""
    normalise_target: bool = True
    """Put the scaled target back on the unit sphere."""
    stop_gradient: bool = True
    """Treat the target as a constant, as both the paper and the code do."""
    reduction: Literal["frobenius", "mean_square"] = "frobenius"
    """`frobenius`: ‖Z − T‖_F / N (official code); `mean_square`: E ‖z − t‖² (Eq. 7)."""
    separation: Literal["soft", "hard"] = "soft"
    """`soft`: SSD; `hard`: our reading of the paper's hard separation, see the module docstring."""


@dataclass(frozen=True, slots=True)
class DimensionScaling:
    """The linear map z ↦ z · Q · diag(d_k) · Qᵀ of one client, without ever forming a D × D matrix."""

    alpha: float
    dense: Tensor
    """[D] d_k itself: α on the dimensions in S_k, 1 elsewhere."""
    own: Tensor
    """[D] 1 on the dimensions in S_k, 0 elsewhere."""
    columns: Tensor | None
    """[D, m]: the columns of the basis Q that d_k scales; None scales coordinate axes."""

    @classmethod
    def create(
        cls,
        vector: ScalingVector,
        basis: Tensor | None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> DimensionScaling:
        """The map of one client.

        Args:
            vector: the client's scaling vector (indices and α).
            basis: [D, D] orthonormal, or None for coordinate axes (the paper).
            device: where the map will be applied.
            dtype: of the embeddings it will be applied to.

        Raises:
            ValueError: the basis is not D × D.

        """
        columns = None
        if basis is not None:
            expected = (vector.dimension, vector.dimension)
            if tuple(basis.shape) != expected:
                raise ValueError(f"the basis has shape {tuple(basis.shape)}, expected {expected}")
            columns = basis[:, list(vector.indices)].to(device=device, dtype=dtype)
        dense = torch.tensor(vector.dense()).to(device=device, dtype=dtype)
        own = torch.zeros(vector.dimension, dtype=dtype)
        own[list(vector.indices)] = 1.0
        return cls(alpha=vector.alpha, dense=dense, own=own.to(device), columns=columns)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """[N, D] -> [N, D]: every row scaled by α along the client's dimensions.

        With Qᵀ·Q = I the map is z + (α − 1)·(z·Q_S)·Q_Sᵀ, which costs 4·N·D·m instead of 4·N·D².
        """
        if self.columns is None:
            return embeddings * self.dense
        return embeddings + (self.alpha - 1.0) * ((embeddings @ self.columns) @ self.columns.T)

    def project(self, embeddings: Tensor) -> Tensor:
        """[N, D] -> [N, D]: every row's orthogonal projection on the client's dimensions, z·Q_S·Q_Sᵀ."""
        if self.columns is None:
            return embeddings * self.own
        return (embeddings @ self.columns) @ self.columns.T


def scaled_target(embeddings: Tensor, scaling: DimensionScaling, options: DimensionScaledOptions) -> Tensor:
    """The point each embedding is pulled to: z ⊙ d_k (Eq. 6) or its projection, [N, D] -> [N, D]."""
    source = embeddings.detach() if options.stop_gradient else embeddings
    target = scaling.project(source) if options.separation == "hard" else scaling(source)
    return normalize(target, dim=1) if options.normalise_target else target


def dimension_scaled(
    embeddings: Tensor, scaling: DimensionScaling, options: DimensionScaledOptions
) -> Tensor:
    """L_DSR, Eq. 7 (or the official code's form of it), for one view.

    Args:
        embeddings: [N, D] projector outputs.
        scaling: the client's map.
        options: which reading.

    Returns:
        A scalar >= 0.

    """
    if options.normalise_input:
        embeddings = normalize(embeddings, dim=1)
    difference = embeddings - scaled_target(embeddings, scaling, options)
    if options.reduction == "frobenius":
        frobenius: Tensor = torch.linalg.vector_norm(difference)
        return frobenius / embeddings.shape[0]
    return difference.square().sum(dim=1).mean()
