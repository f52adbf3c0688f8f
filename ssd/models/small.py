"""A small convolutional encoder for 8 × 8 to 64 × 64 images that trains on a laptop CPU.

A stem convolution, then stages that halve the resolution and double the channels until 4 × 4 is left, then one
convolution to the feature dimension, ReLU, global average pool: like a ResNet, the representation is
non-negative.
"""

from __future__ import annotations

from torch import Tensor, nn

LAST_RESOLUTION = 4


class SmallEncoder(nn.Module):
    """[B, channels, size, size] in [0, 1] -> [B, feature_dim] >= 0."""

    def __init__(self, *, size: int, channels: int, feature_dim: int, width: int) -> None:
        super().__init__()
        layers = _unit(channels, width, stride=1)
        resolution = size
        while resolution > LAST_RESOLUTION:
            layers += _unit(width, 2 * width, stride=2)
            width *= 2
            resolution = (resolution + 1) // 2
        layers += _unit(width, feature_dim, stride=1)
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the representations h of a batch of images."""
        features: Tensor = self.layers(images)
        return features.mean(dim=(2, 3))


def _unit(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
