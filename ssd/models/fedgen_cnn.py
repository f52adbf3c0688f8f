"""The small convolutional network of FedGen's official code (github.com/zhuangdizhu/FedGen, `dd5807c`).

Two 3 × 3 convolutions of stride 2 with BatchNorm and ReLU (widths 6 and 16), flatten, one linear layer to the latent
z. There is no non-linearity after it, so z is unbounded and a linear head on top is one affine map: with ten classes
and 28 × 28 grey images the two have the official 26,434 parameters. The paper (arXiv 2105.10056) names another network;
its published numbers belong to this one.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (6, 16)


class FedGenCnn(nn.Module):
    """[B, channels, size, size] -> [B, feature_dim], any sign."""

    def __init__(self, *, size: int, channels: int, feature_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in WIDTHS:
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels, size = width, (size + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.latent = nn.Linear(channels * size * size, feature_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the latent vectors z of a batch of images."""
        z: Tensor = self.latent(self.layers(images))
        return z
