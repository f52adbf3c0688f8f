"""Terms that a method adds to the align-and-uniform objective, with their statistics.

A term is built for one visit of one client, so whatever it needs beside the batch (a frozen copy of the received
model, a further head, a generator of its own seeded from the task) it holds itself. `ssd.methods.self_supervised.training` calls it once
per step and adds its weighted parts to the loss, in the order of `weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What the forward pass of one batch of B images computed; everything float32 and on the model's device."""

    views: Tensor
    """[2B, C, S, S]: first views, then second views; [3B, C, S, S] with anchors behind them."""
    representations: tuple[Tensor, Tensor]
    """The two views' encoder outputs h, [B, F] each."""
    embeddings: tuple[Tensor, Tensor]
    """The two views' projector outputs z, [B, D] each."""
    anchors: Tensor | None = None
    """[B, D] embeddings z of one view each of B other images of the client, if a term asks for them."""


class Term(Protocol):
    """Parts of the loss beyond alignment, uniformity, dimension scaling and distillation."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The factor of each part in the loss. Part `x` is reported as the statistic `x_sum`."""
        ...

    @property
    def needs_anchors(self) -> bool:
        """Whether every step shall bring a second, independently drawn batch of the client's images."""
        ...

    def parts(self, step: Step) -> Mapping[str, Tensor]:
        """The scalar value of every part in `weights`, before weighting."""
        ...


def statistic(part: str) -> str:
    """The name of the statistic that sums a part over the mini-batches."""
    return f"{part}_sum"
