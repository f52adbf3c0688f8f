"""BatchNorm statistics measured on given images, for versions that carry none (`buffers = "local"`)."""

from __future__ import annotations

import torch
from torch import nn

from ssd.data.images.source import ImageSource

BATCH = 512


@torch.no_grad()
def calibrate(module: nn.Module, source: ImageSource, device: torch.device) -> None:
    """Set every running mean and variance of `module` to the plain average over the batches of `source`.

    Deterministic: images in order, un-augmented. The module's momenta and training flags are restored.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [layer.momentum for layer in layers]
    was_training = module.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    module.train()
    for start in range(0, len(source), BATCH):
        indices = range(start, min(start + BATCH, len(source)))
        module(source.batch(indices).to(device).to(torch.float32) / 255.0)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    module.train(was_training)
