"""Which extra of the distribution brings a package that the base installation does without.

A command imports such packages late. One that is missing ends the command with a sentence that says what to install,
from the project's folder: there is no package index to promise this project on.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

EXTRA_OF: Mapping[str, str] = MappingProxyType(
    {
        "torch": "worker",
        "torchvision": "worker",
        "PIL": "worker",
        "safetensors": "worker",
        "sklearn": "worker",
        "threadpoolctl": "evaluate",
        "matplotlib": "report",
        "pillow_heif": "heic",
        "pydicom": "medical",
        "nibabel": "medical",
        "pyarrow": "parquet",
        "scipy": "report",
        "dp_accounting": "dp",
        "onnx": "onnx",
        "onnxruntime": "onnx",
        "onnxscript": "onnx",
        "tensorboard": "tensorboard",
        "opentelemetry": "tracing",
    }
)
"""Package, as it is imported -> the extra of pyproject.toml that brings it."""


def install(extra: str) -> str:
    """The command that installs an extra, from the folder of the project's pyproject.toml."""
    return f"pip install '.[{extra}]'"


def require(extra: str) -> None:
    """Look, without importing anything, whether an extra's own packages are there.

    A daemon looks when it starts: its children import them, and would die of it one after the other.

    Raises:
        ModuleNotFoundError: one is not; `what_is_missing` has the sentence.
    """
    for package, brings in EXTRA_OF.items():
        if brings == extra and find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def what_is_missing(error: BaseException | None) -> str | None:
    """The sentence about a package that an extra brings.

    Args:
        error: what was raised; the errors that it came from are looked at, too.

    Returns:
        None if it is no missing package, or one that no extra brings.
    """
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            package = error.name.partition(".")[0]
            if package in EXTRA_OF:
                return (
                    f"this needs the package {package}, which the base installation does without: "
                    f"{install(EXTRA_OF[package])} in the project's folder"
                )
        error = error.__cause__ or error.__context__
    return None
