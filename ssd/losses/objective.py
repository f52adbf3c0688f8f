"""The client objective: the weighted sum of the terms over two views (SSD, Eq. 10).

Uniformity, DSR and distillation are averaged over the two views. A term whose weight is 0 is not computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ssd.losses.alignment import alignment
from ssd.losses.dimension_scaled import DimensionScaling, dimension_scaled
from ssd.losses.distillation import distillation
from ssd.losses.presets import SsdLosses
from ssd.losses.uniformity import uniformity

PairLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of two views' embeddings, [N, D] each, to a scalar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """The objective of one batch and its parts, before weighting; scalars (0 where a term is left out)."""

    loss: Tensor
    alignment: Tensor
    uniformity: Tensor
    dsr: Tensor
    distillation: Tensor


def objective(
    representations: tuple[Tensor, Tensor],
    embeddings: tuple[Tensor, Tensor],
    options: SsdLosses,
    scaling: DimensionScaling | None,
    pair_loss: PairLoss | None = None,
) -> Terms:
    """L_align + β·L_uniform + γ·L_DSR + δ·L_distill, or another loss of the pair in place of the first two.

    Args:
        representations: the two views' encoder outputs, [N, F] each.
        embeddings: the two views' projector outputs, [N, D] each.
        options: weights and forms.
        scaling: the client's scaling map; needed if γ is not 0.
        pair_loss: takes the place of L_align + β·L_uniform, which then are only measured.

    Raises:
        ValueError: γ is not 0 and no scaling map is given.

    """
    with torch.set_grad_enabled(pair_loss is None and torch.is_grad_enabled()):
        aligned = alignment(*embeddings, options.alignment)
        uniform = mean_of_views(*(uniformity(view, options.uniformity) for view in embeddings))
    loss = aligned + options.beta * uniform if pair_loss is None else pair_loss(*embeddings)
    scaled = distilled = aligned.new_zeros(())
    if options.gamma != 0:
        if scaling is None:
            raise ValueError(
                "dimension-scaled regularisation needs the client's scaling vector; the task has none"
            )
        scaled = mean_of_views(*(dimension_scaled(view, scaling, options.dsr) for view in embeddings))
        loss = loss + options.gamma * scaled
    if options.delta != 0:
        pairs = zip(representations, embeddings, strict=True)
        distilled = mean_of_views(*(distillation(h, z, options.distillation) for h, z in pairs))
        loss = loss + options.delta * distilled
    return Terms(loss=loss, alignment=aligned, uniformity=uniform, dsr=scaled, distillation=distilled)


def mean_of_views(first: Tensor, second: Tensor) -> Tensor:
    """The mean of one term over the two views."""
    return 0.5 * (first + second)
