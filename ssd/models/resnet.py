"""ResNet encoders, built on torchvision's `ResNet` (He et al., arXiv 1512.03385) with stem and head replaced.

The CIFAR stem (3 × 3, stride 1, no max-pool) is the one SSD uses for 32 × 32 images. State-dict names are
torchvision's, so an exported ImageNet-stem encoder loads into `torchvision.models.resnet18()` but for `fc`.
"""

from __future__ import annotations

from torch import nn

from ssd.torch_support.torchvision_compat import torchvision

FEATURE_DIMS = {"resnet18_cifar": 512, "resnet18": 512, "resnet50": 2048}


def resnet(name: str, *, channels: int) -> nn.Module:
    """An encoder [B, channels, H, W] in [0, 1] -> [B, 512 or 2048] >= 0.

    Args:
        name: a key of `FEATURE_DIMS`; the ones without `_cifar` have the ImageNet stem.
        channels: of the images.

    """
    source = torchvision("torchvision.models.resnet")
    model: nn.Module
    if name == "resnet50":
        model = source.ResNet(source.Bottleneck, [3, 4, 6, 3])
    else:
        model = source.ResNet(source.BasicBlock, [2, 2, 2, 2])
    if name.endswith("_cifar"):
        model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Identity()
    return model
