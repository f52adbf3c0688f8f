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
    # Some modules make tensors as they are imported, which a caller building on the meta device must not catch.
    with torch.device("cpu"):
        if "torchvision" not in sys.modules:
            _import_root()
        return importlib.import_module(module)


def _import_root() -> None:
    _forget()
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _forget()
        for name, schema in SCHEMAS.items():
            torch.library.define(f"torchvision::{name}", schema)
        importlib.import_module("torchvision")


def _forget() -> None:
    """Drop what a failed import leaves behind: modules inside a package that is gone confuse the next try."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
