"""A narrow residual encoder for 32 × 32 images, small enough for experiments on a CPU.

Three stages of one basic block each (He et al., arXiv 1512.03385) behind a 3 × 3 stem, every one of the four at
stride 2 and every stage twice as wide as what comes before it; global average pool; with a classifier eight layers.
Where a block changes the shape its shortcut is a 1 × 1 convolution (their option B), as in the wide encoders of
this folder. The CIFAR ResNet of the same paper keeps the full resolution in the stem and in the first stage, which
takes most of its time: at width 32 this one has four times the parameters (1.2 million) and trains an image in a
ninth of the time (0.95 against 8.3 ms of one CPU core for two views, forward and backward).
"""

from __future__ import annotations

from torch import Tensor, nn

from ssd.torch_support.torchvision_compat import torchvision

STAGES = ((2, 2), (4, 2), (8, 2))
"""Of each stage: its width in units of the stem's, and its stride."""
EXPANSION = STAGES[-1][0]
"""Length of h over the width of the stem."""


class ResNet8(nn.Module):
    """[B, channels, S, S] in [0, 1] -> [B, 8 * width] >= 0: the last block ends in a ReLU."""

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        block = torchvision("torchvision.models.resnet").BasicBlock
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        inputs = width
        for factor, stride in STAGES:
            outputs = factor * width
            layers.append(block(inputs, outputs, stride, _shortcut(inputs, outputs, stride)))
            inputs = outputs
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the representations h of a batch of images."""
        features: Tensor = self.layers(images)
        return features.mean(dim=(2, 3))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Projects a block's input to the new shape, so that the block's result can be added to it."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )
