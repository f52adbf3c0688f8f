"""The files an encoder can become, as bytes in memory: nothing here touches a disk."""

from __future__ import annotations

import io
import json
from typing import Any

import torch
from safetensors.torch import save

from ssd.export.architecture import stem_lines, torchvision_name
from ssd.export.source import FormImpossible, Source

Json = Any
FORMATS = ("state-dict", "torchvision", "timm", "onnx")


def state_dict_bytes(source: Source) -> bytes:
    """A `torch.save`d mapping of names to tensors, for `torch.load(…, weights_only=True)`."""
    buffer = io.BytesIO()
    torch.save(source.state(), buffer)
    return buffer.getvalue()


def torchvision_bytes(source: Source) -> bytes:
    """The same for torchvision's ResNet of that name, `fc` aside (and the stem, where `stem_lines` says so).

    Raises:
        FormImpossible: torchvision has no such architecture.

    """
    refuse_unless_resnet(source, "torchvision")
    return state_dict_bytes(source)


def timm_bytes(source: Source) -> bytes:
    """A `safetensors` file for `timm.create_model(…, num_classes=0)`, whose names are torchvision's.

    Raises:
        FormImpossible: timm has no such architecture.

    """
    refuse_unless_resnet(source, "timm")
    return save(
        {name: value.contiguous() for name, value in source.state().items()}, metadata={"format": "pt"}
    )


def timm_config(source: Source) -> dict[str, Json] | None:
    """`config.json` for `timm.create_model("local-dir:FOLDER")`; None where timm's own stem does not fit."""
    if not is_resnet(source) or stem_lines(source):
        return None
    return {
        "architecture": torchvision_name(source),
        "num_classes": 0,
        "num_features": source.feature_dim,
        "pretrained_cfg": {
            "input_size": [source.image.channels, source.image.size, source.image.size],
            "fixed_input_size": False,
            "mean": list(source.mean),
            "std": list(source.std),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "num_classes": 0,
            "pool_size": [max(1, -(-source.image.size // 32))] * 2,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }


def config_bytes(config: Json) -> bytes:
    """JSON for people too."""
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def is_resnet(source: Source) -> bool:
    """Whether torchvision and timm have the architecture and one module's features do not depend on the batch."""
    return source.model.name in ("resnet18", "resnet18_cifar", "resnet50") and source.has_statistics


def refuse_unless_resnet(source: Source, form: str) -> None:
    """Raise `FormImpossible` unless `is_resnet`."""
    if is_resnet(source):
        return
    if not source.has_statistics:
        raise FormImpossible(
            f"{form} is impossible for this encoder: it was exported without BatchNorm statistics (buffers = "
            f'"local"), which {form} models need; take --format state-dict'
        )
    raise FormImpossible(
        f"{form} has no architecture like {source.model.name!r}: take --format state-dict or onnx, or leave --format "
        "out for a folder whose encoder.py builds the module with torch alone"
    )
