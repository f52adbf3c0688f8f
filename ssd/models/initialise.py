"""Initial weights from an explicit generator, so that building a model never touches the global one.

Models are constructed on the meta device (no memory, no randomness) and filled here, in the order of
`Module.modules()`: the same seed gives the same bits on every host with the same torch version.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Initialisation = Literal["fan_out", "torch"]


def initialise(
    module: nn.Module, generator: torch.Generator, convolutions: Initialisation = "fan_out"
) -> None:
    """Fill a module's parameters and buffers in place, on the CPU.

    Convolutions: He-normal, fan-out, bias 0 (as torchvision's ResNet), or `torch`'s default, weights and bias uniform
    ±1/√fan_in. Linear: torch's default. Normalisation: weight 1, bias 0, running mean 0, running variance 1.

    Raises:
        TypeError: the model holds parameters in a kind of layer not listed above.

    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and convolutions == "torch":
            bound = layer.weight[0].numel() ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.reset_running_stats()
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif any(True for _ in layer.parameters(recurse=False)):
            raise TypeError(f"no rule to initialise a {type(layer).__name__}")
