"""The one door to torchvision.

A CPU-only torch beside PyPI's torchvision (whose wheel links CUDA) fails on `import torchvision` with "operator
torchvision::nms does not exist": the wheel's operator library does not load, and torchvision then registers
meta kernels for operators nobody declared. Declaring the schemas first lets the import succeed; the models and
transforms we use need none of those operators. Where the library does load, it declares them itself, so the
declaration is withdrawn again.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

SCHEMAS = dict.fromkeys(("nms", "qnms"), "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def torchvision(module: str = "torchvision") -> ModuleType:
    """Import torchvision, or a module inside it such as `torchvision.models.resnet`.

    Raises:
        ImportError: torchvision is not installed.

    """
    if "torchvision" not in sys.modules:
        _import_root()
    return importlib.import_module(module)


def _import_root() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name, schema in SCHEMAS.items():
            torch.library.define(f"torchvision::{name}", schema)
        importlib.import_module("torchvision")
