"""Relational distillation: two views of an image should stand alike to a set of other images (FedX).

FedX (Han et al., ECCV 2022, arXiv 2207.09158): each view's similarities to the anchors become a distribution, and both
distributions are pulled to their mean m, which may be taken at a temperature of its own. Value and gradients follow the released code (`Sungwon-Han/FEDX`), which stops
no gradient, not through m and not through the anchors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize


def relational(
    first: Tensor,
    second: Tensor,
    anchors: Tensor,
    temperature: float,
    target_temperature: float | None = None,
) -> Tensor:
    """(KL(m ‖ p₁) + KL(m ‖ p₂)) / 2 with p_i = softmax of the cosines to the anchors over τ, m the mean of the two over τ'.

    Args:
        first: [N, D] vectors of one view.
        second: [N, D] vectors of the other view, row for row of the same images.
        anchors: [A, D] vectors of other images.
        temperature: τ of the softmaxes that are pulled.
        target_temperature: τ' of the softmaxes whose mean they are pulled to; None: τ.

    Returns:
        A scalar >= 0, the mean over the rows.

    """
    anchors = normalize(anchors, dim=1)
    cosines = [normalize(view, dim=1) @ anchors.T for view in (first, second)]
    one, two = (log_softmax(each / temperature, dim=1) for each in cosines)
    sharp = temperature if target_temperature is None else target_temperature
    middle = torch.logaddexp(*(log_softmax(each / sharp, dim=1) for each in cosines)) - math.log(2.0)
    return (middle.exp() * (middle - 0.5 * (one + two))).sum(dim=1).mean()
