"""Makes FedGen's teacher, and the labels it is asked about, from what the server learned in a round.

Everything here is a function of the reduced update, summed label counts and, for `individual_heads` alone, the
collected heads and counts. A label that nobody counted gets probability 0, and its shares are never looked at.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ssd.losses.ensemble import averaged_head, individual_heads, label_weighted_heads
from ssd.method.protocol import Reduction
from ssd.methods.fedgen.config import FedGenConfig
from ssd.methods.fedgen.server import Teacher
from ssd.models.classifier import HEAD

LABEL_COUNTS, LABEL_HEADS = "label_counts", "label_heads"

Floats = NDArray[np.float64]


def scaled_heads(head: NDArray[np.float32], counts: Floats, smoothing: int) -> Floats:
    """[C, h] float64: a client's head, once for every label, times what the client counted of it (smoothed)."""
    return np.outer(counts + smoothing, head.astype(np.float64))


def teacher_of(reduction: Reduction, where: slice, config: FedGenConfig) -> Teacher:
    """The teacher that the generator is trained against in this round.

    Args:
        reduction: the round.
        where: the head's values in the vector: weights, then biases.
        config: which teacher.

    """
    base = reduction.base[where]
    if config.teacher == "averaged_head":
        weight, bias = _split((base + reduction.delta[where])[None], config)
        return partial(averaged_head, weight=weight[0], bias=bias[0])
    if config.teacher == "label_weighted_heads":
        counts = reduction.statistics[LABEL_COUNTS] + config.count_smoothing * reduction.clients
        # A label with no count at all has no head either; nothing is drawn from it.
        heads = reduction.statistics[LABEL_HEADS] / np.maximum(counts, 1.0)[:, None]
        weight, bias = _split(heads, config)
        return partial(label_weighted_heads, weights=weight, biases=bias)
    heads = np.stack([base + np.asarray(each.groups[HEAD], np.float32) for each in reduction.collected])
    counted = np.stack([np.asarray(each.statistics[LABEL_COUNTS]) for each in reduction.collected])
    shares = np.maximum(counted, 0.0) + config.count_smoothing
    shares = shares / np.maximum(shares.sum(axis=0), 1.0)
    weight, bias = _split(heads, config)
    return partial(
        individual_heads,
        weights=weight,
        biases=bias,
        shares=torch.from_numpy(shares.astype(np.float32)),
        matched=config.matched_shares,
    )


def counted_labels(reduction: Reduction) -> Floats:
    """[C] how often the cohort counted each label; whole numbers >= 0 whatever a client may claim."""
    return np.maximum(np.rint(reduction.statistics[LABEL_COUNTS]), 0.0)


def distribution(counts: Floats, kind: str) -> Floats:
    """[C] probabilities: `counts` in proportion, `uniform` over what occurs; over all labels if none does."""
    if not counts.any():
        return np.full(counts.shape, 1.0 / counts.size)
    weights = counts if kind == "counts" else (counts > 0).astype(np.float64)
    found: Floats = weights / weights.sum()
    return found


def _split(heads: NDArray[np.generic], config: FedGenConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, C, D] weights and [N, C] biases of N flat heads."""
    values = torch.from_numpy(np.ascontiguousarray(heads, np.float32))
    split = config.classes * config.feature_dim
    return values[:, :split].reshape(-1, config.classes, config.feature_dim), values[:, split:]
