"""An encoder as a `safetensors` file: what a user takes home, and what a run may be started from.

Tensors carry their state-dict names. The metadata (strings) says what the file is: `format`, `model` and `image`
(JSON, enough to build the module again), and whatever the exporter adds (run, version, digest).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ssd.files import write_atomically

if TYPE_CHECKING:
    from torch import nn

    from ssd.data.source import ImageFormat

FORMAT = "ssd-encoder-v1"
Tensors = Mapping[str, NDArray[np.generic]]


class EncoderFileError(ValueError):
    """A file is not an encoder, or not the one that is needed; the message names the first difference."""


def write_encoder(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write an encoder file; the file appears complete or not at all.

    Args:
        path: of the new file; an existing one is replaced.
        tensors: from `Method.export`.
        metadata: strings by name; `format` is added.

    """
    ordered = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_atomically(path, save(ordered, metadata={**metadata, "format": FORMAT}))


def read_encoder(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The tensors (as float32) and the metadata of any `safetensors` file.

    Raises:
        EncoderFileError: not a `safetensors` file, or a tensor that is not a finite floating-point array.

    """
    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118  # not a mapping
                tensor = file.get_tensor(name)
                if name.endswith("num_batches_tracked"):
                    continue
                if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
                    raise EncoderFileError(
                        f"{path}: tensor {name!r} is not finite floating point ({tensor.dtype})"
                    )
                tensors[name] = tensor.astype(np.float32)
    except (OSError, SafetensorError, TypeError) as error:
        raise EncoderFileError(f"{path} cannot be read as a safetensors file: {error}") from error
    return tensors, metadata


def encoder_metadata(config: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that lets `load_encoder` build the module, from a declaration's config."""
    return {key: json.dumps(config[key], sort_keys=True) for key in ("model", "image") if key in config}


def fitting(
    tensors: Mapping[str, NDArray[np.float32]], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Check that a file holds exactly the encoder described by `shapes` (name -> shape, in order).

    A classification head (`fc.*`), as torchvision's files have, is ignored.

    Raises:
        EncoderFileError: naming the first tensor that is missing, has another shape, or should not be there.

    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise EncoderFileError(f"{path} does not fit this model: it has no tensor {name!r}")
        if tensors[name].shape != shape:
            raise EncoderFileError(
                f"{path} does not fit this model: {name!r} has shape {tensors[name].shape}, the model {shape}"
            )
    for name in tensors:
        if name not in shapes and not name.startswith("fc."):
            raise EncoderFileError(f"{path} does not fit this model: the model has no tensor {name!r}")


def load_encoder(path: Path) -> tuple[nn.Module, ImageFormat]:
    """The encoder of a file as a module in evaluation mode, and the images it takes.

    It maps [B, C, S, S] float32 in [0, 1] to [B, feature_dim]. A file without BatchNorm statistics (a run with
    `buffers = "local"`) gives a module that normalises by the batch it is shown.

    Raises:
        EncoderFileError: not a file written by this project, or its tensors do not fit its description.

    """
    import torch

    from ssd.data.source import ImageFormat
    from ssd.models.flat import COUNTER, STATISTICS
    from ssd.models.registry import ModelConfig, skeleton
    from ssd.settings import read

    tensors, metadata = read_encoder(path)
    if metadata.get("format") != FORMAT:
        raise EncoderFileError(f"{path} is not an encoder exported by this project (no format {FORMAT!r})")
    try:
        config = read(ModelConfig, json.loads(metadata["model"]), "model")
        image = read(ImageFormat, json.loads(metadata["image"]), "image")
    except (KeyError, ValueError) as error:
        raise EncoderFileError(f"{path} does not say which encoder it holds: {error}") from error
    encoder = skeleton(config, image).to_empty(device="cpu")
    if not any(name.endswith(STATISTICS) for name in tensors):
        for module in encoder.modules():
            for name in (*STATISTICS, COUNTER):
                if name in dict(module.named_buffers(recurse=False)):
                    setattr(module, name, None)
    state = {name: value for name, value in encoder.state_dict().items() if not name.endswith(COUNTER)}
    fitting(tensors, {name: tuple(value.shape) for name, value in state.items()}, path)
    encoder.load_state_dict({name: torch.from_numpy(tensors[name].copy()) for name in state}, strict=False)
    return encoder.eval(), image
