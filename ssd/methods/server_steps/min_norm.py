"""The shortest vector in the convex hull of given vectors, from their inner products alone.

Multi-objective optimisation (MGDA, Désidéri 2012; Sener & Koltun, NeurIPS 2018): the min-norm point d of the updates'
convex hull has <d, u_k> >= ‖d‖² for every k, so a step along it hurts nobody's objective to first order. Solved by
Frank-Wolfe steps between pairs of vectors with exact line search, which converge linearly on a simplex; the released
solver of FedU2 stops after 20 projected-gradient steps instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-10
"""Stop when <d, u_k> of any vector in use exceeds the smallest by no more than this, relative to the longest u."""
MAX_STEPS = 100_000


def min_norm_weights(gram: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convex weights c that minimise ‖Σ_k c_k u_k‖.

    Ties go to the lower index, so equal input gives equal bits.

    Args:
        gram: [K, K] inner products <u_i, u_j>.
        start: [K] non-negative weights to start from; matters where the minimiser is not unique.

    Returns:
        [K] non-negative, summing to 1.

    Raises:
        ValueError: the shapes do not fit, or `start` is not a set of weights.

    """
    if gram.shape != (start.size, start.size) or start.ndim != 1:
        raise ValueError(
            f"expected inner products [K, K] and weights [K], got {gram.shape} and {start.shape}"
        )
    if not (start.size and np.isfinite(start).all() and start.min() >= 0.0 and start.sum() > 0.0):
        raise ValueError("weights to start from must be non-negative with a positive sum")
    weights: NDArray[np.float64] = start / start.sum()
    tolerance = TOLERANCE * float(gram.diagonal().max())
    for _ in range(MAX_STEPS):
        slopes = gram @ weights
        to = int(np.argmin(slopes))
        away = int(np.argmax(np.where(weights > 0.0, slopes, -np.inf)))
        gain = float(slopes[away] - slopes[to])
        if gain <= tolerance:
            break
        curvature = float(gram[to, to] + gram[away, away] - 2.0 * gram[to, away])
        moved = weights[away] if curvature <= 0.0 else min(float(weights[away]), gain / curvature)
        weights[to] += moved
        weights[away] = 0.0 if moved == weights[away] else weights[away] - moved
    weights /= weights.sum()
    return weights
