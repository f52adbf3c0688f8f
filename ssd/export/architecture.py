"""The encoder as a Python file of its own: torch, for the ResNets torchvision, and nothing of this project.

Every number in the text is taken from the module itself, so that the text cannot disagree with the weights; a test runs
the text of every encoder of the registry and compares features. Nothing of a file's free-text metadata gets in.
"""

from __future__ import annotations

from torch import nn

from ssd.export.source import Source

WEIGHTS = "encoder.pt"

_HEAD = '''"""The encoder of {weights}: [B, {channels}, {size}, {size}] float32 in [0, 1] -> [B, {dim}]. Needs {needs}.

    from encoder import load
    features = load()(images)
"""

{imports}

BatchNorm = {norm}


'''

_BY_BATCH = "partial(nn.BatchNorm2d, track_running_stats=False)  # normalises by the batch: show it many images at once"

_RESNET = '''def build():
    """The module without its weights."""
    encoder = torchvision.models.{name}(weights=None, norm_layer=BatchNorm)
{stem}    encoder.fc = nn.Identity()
    return encoder
'''

_SMALL = """class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs, stride in {units}:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), BatchNorm(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


build = Encoder
"""

_RESNET8 = """def shortcut(inputs, outputs, stride):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm(outputs))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d({channels}, {width}, 3, 2, 1, bias=False), BatchNorm({width}), nn.ReLU(inplace=True)]
        for inputs, outputs, stride in {blocks}:
            layers.append(BasicBlock(inputs, outputs, stride, shortcut(inputs, outputs, stride), norm_layer=BatchNorm))
        self.layers = nn.Sequential(*layers)

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3))


build = Encoder
"""

_FEDGEN = """class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs, stride in {units}:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), BatchNorm(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.latent = nn.Linear({flat}, {dim})

    def forward(self, images):
        return self.latent(self.layers(images))


build = Encoder
"""

_TAIL = '''

class Normalise(nn.Module):
    """(x - mean) / std for x in [0, 1]."""

    def forward(self, images):
        mean, std = (images.new_tensor(values)[:, None, None] for values in ({mean}, {std}))
        return (images - mean) / std


def load(path=Path(__file__).with_name("{weights}")):
    """The encoder in evaluation mode, on the CPU, with the normalisation of its images in front."""
    encoder = build()
    encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return nn.Sequential(Normalise(), encoder).eval()
'''


def module_text(source: Source) -> str:
    """The text of `encoder.py` for an encoder."""
    name, encoder = source.model.name, source.encoder
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    units = [(each.in_channels, each.out_channels, each.stride[0]) for each in convolutions]
    imports = ["from pathlib import Path", "", "import torch", "from torch import nn"]
    if name == "resnet8":
        imports.append("from torchvision.models.resnet import BasicBlock")
    elif name.startswith("resnet"):
        imports.insert(3, "import torchvision")
    if not source.has_statistics:
        imports.insert(0, "from functools import partial")
    head = _HEAD.format(
        weights=WEIGHTS,
        channels=source.image.channels,
        size=source.image.size,
        dim=source.feature_dim,
        needs="torch and torchvision" if name.startswith("resnet") else "torch",
        imports="\n".join(imports),
        norm="nn.BatchNorm2d" if source.has_statistics else _BY_BATCH,
    )
    return head + _body(source, units) + _TAIL.format(mean=source.mean, std=source.std, weights=WEIGHTS)


def torchvision_name(source: Source) -> str:
    """What torchvision and timm call the architecture: `resnet18` for `resnet18_cifar` too."""
    return source.model.name.removesuffix("_cifar")


def stem_lines(source: Source) -> list[str]:
    """What has to be changed in torchvision's (or timm's) module called `encoder` before the weights fit."""
    first = source.encoder.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    lines = []
    if source.model.name.endswith("_cifar") or first.in_channels != 3:
        kernel, stride, padding = first.kernel_size[0], first.stride[0], first.padding[0]
        lines.append(
            f"encoder.conv1 = nn.Conv2d({first.in_channels}, {first.out_channels}, {kernel}, {stride}, {padding}, bias=False)"
        )
    if source.model.name.endswith("_cifar"):
        lines.append("encoder.maxpool = nn.Identity()")
    return lines


def _body(source: Source, units: list[tuple[int, int, int]]) -> str:
    match source.model.name:
        case "small":
            return _SMALL.format(units=units)
        case "fedgen_cnn":
            last = source.encoder.get_submodule("latent")
            assert isinstance(last, nn.Linear)
            return _FEDGEN.format(units=units, flat=last.in_features, dim=last.out_features)
        case "resnet8":
            # A block is two 3 x 3 convolutions and, after them, the 1 x 1 of its shortcut.
            blocks = units[3::3]
            return _RESNET8.format(channels=units[0][0], width=units[0][1], blocks=blocks)
        case _:
            stem = "".join(f"    {line}\n" for line in stem_lines(source))
            return _RESNET.format(name=torchvision_name(source), stem=stem)
