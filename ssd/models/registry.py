"""The encoders that a configuration can name, and how each is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from ssd.data.images.source import ImageFormat
from ssd.models.allocate import allocated
from ssd.models.fedgen_cnn import FedGenCnn
from ssd.models.initialise import initialise
from ssd.models.resnet import FEATURE_DIMS, resnet
from ssd.models.resnet8 import EXPANSION, ResNet8
from ssd.models.small import SmallEncoder

EncoderName = Literal["small", "fedgen_cnn", "resnet8", "resnet18_cifar", "resnet18", "resnet50"]
NAMES: tuple[str, ...] = get_args(EncoderName)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Names an encoder and gives its sizes."""

    name: EncoderName = "resnet18_cifar"
    feature_dim: int | None = None
    """Length of h. Free for `small` (None: 128) and `fedgen_cnn` (None: 32); eight times the width for `resnet8`;
    fixed for the larger ResNets (512, 512, 2048)."""
    width: int | None = None
    """Channels of the first layer of `small` and `resnet8` (None: 32); not a setting of the others."""

    def resolved(self) -> ModelConfig:
        """The same configuration with every None that has a default replaced by it.

        Raises:
            ValueError: a value the named encoder cannot have.

        """
        if self.name == "small":
            feature_dim = self.feature_dim if self.feature_dim is not None else 128
            width = self.width if self.width is not None else 32
            if feature_dim < 1 or width < 1:
                raise ValueError(f"feature_dim and width must be positive, got {feature_dim} and {width}")
            return ModelConfig(name=self.name, feature_dim=feature_dim, width=width)
        if self.name == "resnet8":
            width = self.width if self.width is not None else 32
            if width < 1:
                raise ValueError(f"width must be positive, got {width}")
            if self.feature_dim not in (None, EXPANSION * width):
                raise ValueError(
                    f"resnet8 of width {width} has feature_dim {EXPANSION * width}, not {self.feature_dim}"
                )
            return ModelConfig(name=self.name, feature_dim=EXPANSION * width, width=width)
        if self.name == "fedgen_cnn":
            feature_dim = self.feature_dim if self.feature_dim is not None else 32
            if feature_dim < 1 or self.width is not None:
                raise ValueError("fedgen_cnn has a positive feature_dim and no width")
            return ModelConfig(name=self.name, feature_dim=feature_dim, width=None)
        fixed = FEATURE_DIMS[self.name]
        if self.feature_dim not in (None, fixed):
            raise ValueError(f"{self.name} has feature_dim {fixed}, not {self.feature_dim}")
        if self.width is not None:
            raise ValueError(f"width is a setting of the small encoders (small, resnet8), not of {self.name}")
        return ModelConfig(name=self.name, feature_dim=fixed, width=None)


def skeleton(config: ModelConfig, image: ImageFormat) -> nn.Module:
    """An encoder on the meta device: shapes and names, no memory. Touches no random generator.

    Maps [B, C, S, S] images in [0, 1] to [B, feature_dim].
    """
    sizes = config.resolved()
    with torch.device("meta"):
        if sizes.name == "fedgen_cnn":
            assert sizes.feature_dim is not None
            return FedGenCnn(size=image.size, channels=image.channels, feature_dim=sizes.feature_dim)
        if sizes.width is None:
            return resnet(sizes.name, channels=image.channels)
        if sizes.name == "resnet8":
            return ResNet8(channels=image.channels, width=sizes.width)
        assert sizes.feature_dim is not None
        return SmallEncoder(
            size=image.size, channels=image.channels, feature_dim=sizes.feature_dim, width=sizes.width
        )


def build_initialised(config: ModelConfig, image: ImageFormat, seed: int) -> nn.Module:
    """The encoder on the CPU with initial weights drawn from `seed`."""
    encoder = allocated(skeleton(config, image))
    initialise(encoder, torch.Generator().manual_seed(seed))
    return encoder
