"""Turning images into features, once, so that every measure sees the same numbers.

An encoder here is any function from an image batch to features. It accepts uint8 batches (as an
`ImageSource` gives them) and, for the alignment measure, whatever the views function yields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ssd.data.images.source import ImageSource
from ssd.evaluation.measures import Track, untracked

Encode: TypeAlias = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] (uint8, or floating point in [0, 1]) to features [B, D]."""


def module_encoder(module: nn.Module, device: torch.device | str = "cpu") -> Encode:
    """`module` as an `Encode`: on `device`, in evaluation mode, without gradients.

    uint8 batches become float32 in [0, 1]; no mean/std normalisation is applied, as in training. The module's
    training flags are restored after every batch, so evaluating during a run changes nothing.
    """

    def encode(images: Tensor) -> Tensor:
        batch = images.to(device)
        if batch.dtype == torch.uint8:
            batch = batch.to(torch.float32) / 255.0
        with _evaluating(module), torch.inference_mode():
            features: Tensor = module(batch)
        return features

    return encode


def features(
    encode: Encode,
    source: ImageSource,
    *,
    device: torch.device | str = "cpu",
    batch: int = 512,
    track: Track = untracked,
) -> Tensor:
    """Features of every image of `source`, in its order.

    Returns:
        float32 [N, D] on the CPU; spatial or trailing dimensions of the encoder's output are flattened.

    Raises:
        ValueError: the source is empty, or a feature is not finite (the encoder has diverged; every measure
            of it would be meaningless).
    """
    if len(source) == 0:
        raise ValueError("there are no images to take features of")
    parts = []
    for indices in batches(len(source), batch):
        with torch.inference_mode():
            output = encode(source.batch(indices).to(device))
        parts.append(output.detach().flatten(1).to("cpu", torch.float32))
        track("features", indices.stop, len(source))
    result = torch.cat(parts).clone()
    if not bool(torch.isfinite(result).all()):
        raise ValueError("the encoder gives features that are not finite; it has diverged")
    return result


def batches(count: int, size: int) -> Iterator[range]:
    """`range(count)` in consecutive pieces of at most `size`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
