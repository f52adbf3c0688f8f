"""A narrow residual encoder for 32 × 32 images, small enough for experiments on a CPU.

The CIFAR ResNet of He et al. (arXiv 1512.03385, §4.2) with one block per stage (n = 1, hence 8 layers with a
classifier) and free width: a 3 × 3 stem, three stages at strides 1, 2, 2, global average pool. Where a block
changes the shape its shortcut is a 1 × 1 convolution (their option B), as in the wide encoders of this folder.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssd.torchvision_compat import torchvision

STAGES = ((1, 1), (2, 2), (4, 2))
"""Of each stage: its width in units of the stem's, and its stride."""
EXPANSION = STAGES[-1][0]
"""Length of h over the width of the stem."""


class ResNet8(nn.Module):
    """[B, channels, S, S] in [0, 1] -> [B, 4 * width] >= 0: the last block ends in a ReLU."""

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        block = torchvision("torchvision.models.resnet").BasicBlock
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
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
        """The representations h of a batch of images."""
        features: Tensor = self.layers(images)
        return features.mean(dim=(2, 3))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """What a block adds its result to: the input itself (None) or, in another shape, a projection of it."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )
