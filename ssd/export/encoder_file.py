"""Parts of a model version as `safetensors` files: the encoder a user takes home, and what stood behind it.

Tensors carry their state-dict names. The metadata (strings) says what the file is: `format`, `model`, `image` and,
if the method has one, `normalise` (JSON, enough to build the module again), and whatever the exporter adds (run,
version, digest). A file of another
part than the encoder also says `part`: `projector` (with its sizes under `projector`) or `head` (a linear layer:
`weight` [C, D], `bias` [C]).
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

from ssd.export.header import HeaderRefused, check_header
from ssd.files import write_atomically
from ssd.updates.spec import ParameterSpec

if TYPE_CHECKING:
    from torch import nn

    from ssd.data.images.source import ImageFormat
    from ssd.data.preparation import Normalisation

FORMAT = "ssd-encoder-v1"
PART_FORMAT = "ssd-part-v1"
_BUFFERS = "buffers"
Tensors = Mapping[str, NDArray[np.generic]]


class EncoderFileError(ValueError):
    """A file is not an encoder, or not the one that is needed; the message names the first difference."""


def write_encoder(
    path: Path, tensors: Tensors, metadata: Mapping[str, str], *, part: str | None = None
) -> None:
    """Write an encoder file; the file appears complete or not at all.

    Args:
        path: of the new file; an existing one is replaced.
        tensors: from `Method.export` or `tensors_of_part`.
        metadata: strings by name; `format` is added.
        part: which part the tensors are, if not the encoder that the method exports.

    """
    ordered = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    kind = {"format": FORMAT} if part is None else {"format": PART_FORMAT, "part": part}
    write_atomically(path, save(ordered, metadata={**metadata, **kind}))


def read_encoder(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The tensors (as float32) and the metadata of any `safetensors` file.

    Raises:
        EncoderFileError: not a `safetensors` file, or a tensor that is not a finite floating-point array.

    """
    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        check_header(path)
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
    except HeaderRefused as error:
        raise EncoderFileError(str(error)) from error
    except OSError as error:
        raise EncoderFileError(f"{path.absolute()} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, TypeError) as error:
        raise EncoderFileError(f"{path} cannot be read as a safetensors file: {error}") from error
    return tensors, metadata


def encoder_metadata(config: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that lets `load_encoder` and `load_projector` build modules, from a declaration's config."""
    keys = ("model", "image", "normalise", "projector")
    return {key: json.dumps(config[key], sort_keys=True) for key in keys if config.get(key) is not None}


def tensors_of_part(
    spec: ParameterSpec, vector: NDArray[np.float32], part: str
) -> dict[str, NDArray[np.generic]]:
    """The tensors of one part of a version, BatchNorm statistics included, without the part's name in front.

    Args:
        spec: of the version; its groups, but for the statistics', are the parts.
        vector: [n] float32.
        part: a part whose tensors are called `part.…`.

    Raises:
        ValueError: the file has no such part; the message lists the parts that it has.

    """
    prefix = f"{part}."
    chosen = [tensor for tensor in spec.tensors if tensor.name.startswith(prefix)]
    if part not in spec.groups or part == _BUFFERS or not chosen:
        known = ", ".join(name for name in spec.groups if name != _BUFFERS)
        raise ValueError(f"the model has no part {part!r}; its parts are {known}")
    return {
        tensor.name.removeprefix(prefix): vector[tensor.where].reshape(tensor.shape).astype(np.float32)
        for tensor in chosen
    }


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

    It maps [B, C, S, S] float32 in [0, 1] to [B, feature_dim]; a method's normalisation of the images is part of it. A file without BatchNorm statistics (a run with
    `buffers = "local"`) gives a module that normalises by the batch it is shown.

    Raises:
        EncoderFileError: not a file written by this project, or its tensors do not fit its description.

    """
    encoder, image, normalise = bare_encoder(path)
    # A hook and not a layer in front: the tensors keep their names.
    encoder.register_forward_pre_hook(lambda _, images: (normalise(images[0]),))
    return encoder, image


def bare_encoder(path: Path) -> tuple[nn.Module, ImageFormat, Normalisation]:
    """The same as `load_encoder`, with the normalisation apart: the module takes images it was applied to.

    Raises:
        EncoderFileError: as there.

    """
    from ssd.data.images.source import ImageFormat
    from ssd.data.preparation import Normalisation
    from ssd.models.registry import ModelConfig, skeleton
    from ssd.settings import read

    tensors, metadata = read_encoder(path)
    if metadata.get("format") != FORMAT:
        raise EncoderFileError(f"{path} is not an encoder exported by this project (no format {FORMAT!r})")
    try:
        config = read(ModelConfig, json.loads(metadata["model"]), "model")
        image = read(ImageFormat, json.loads(metadata["image"]), "image")
        normalise = read(Normalisation, json.loads(metadata.get("normalise", "{}")), "normalise")
        normalise.check(image.channels)
        # torch answers sizes that no memory holds with RuntimeError, even where nothing is allocated.
        empty = skeleton(config, image)
    except (KeyError, ValueError, RecursionError, OverflowError, RuntimeError) as error:
        raise EncoderFileError(f"{path} does not say which encoder it holds: {error}") from error
    return _filled(empty, tensors, path), image, normalise


def feature_dim_of(path: Path) -> int:
    """The length of the representation h that a file's encoder gives, or its projector takes.

    Raises:
        EncoderFileError: the file does not say which encoder it belongs to.

    """
    from ssd.models.registry import ModelConfig
    from ssd.settings import read

    try:
        config = read(ModelConfig, json.loads(read_encoder(path)[1]["model"]), "model").resolved()
    except (KeyError, ValueError) as error:
        raise EncoderFileError(f"{path} does not say which encoder it belongs to: {error}") from error
    assert config.feature_dim is not None
    return config.feature_dim


def load_projector(path: Path) -> nn.Module:
    """The projector of a file as a module in evaluation mode: [B, feature_dim] -> [B, out_dim].

    Raises:
        EncoderFileError: not a projector written by this project, or its tensors do not fit its description.

    """
    from ssd.models.projector import ProjectorConfig, skeleton
    from ssd.settings import read

    tensors = _part(path, "projector")
    metadata = read_encoder(path)[1]
    try:
        sizes = read(ProjectorConfig, json.loads(metadata["projector"]), "projector")
    except (KeyError, ValueError) as error:
        raise EncoderFileError(f"{path} does not say which projector it holds: {error}") from error
    return _filled(skeleton(feature_dim_of(path), sizes), tensors, path)


def load_head(path: Path, feature_dim: int) -> nn.Linear:
    """The linear classifier of a file: [B, feature_dim] -> [B, classes].

    Raises:
        EncoderFileError: not a head written by this project, or made for features of another length.

    """
    import torch
    from torch import nn

    tensors = _part(path, "head")
    weight = tensors.get("weight", np.zeros(0, np.float32))
    classes = weight.shape[0] if weight.ndim == 2 else 0
    fitting(tensors, {"weight": (classes, feature_dim), "bias": (classes,)}, path)
    with torch.device("meta"):
        head = nn.Linear(feature_dim, classes)
    _filled(head, tensors, path)
    return head


def same_version(encoder: Path, other: Path) -> None:
    """Check that two files were exported from one version, as far as they say where they come from.

    Raises:
        EncoderFileError: they name different versions.

    """
    first, second = (read_encoder(path)[1] for path in (encoder, other))
    for key in ("model_digest", "run", "version"):
        if key in first and key in second and first[key] != second[key]:
            raise EncoderFileError(
                f"{other} is of another version than {encoder} ({key} {second[key]!r}, not {first[key]!r}): "
                "export both from the same one"
            )


def _part(path: Path, part: str) -> dict[str, NDArray[np.float32]]:
    tensors, metadata = read_encoder(path)
    if (metadata.get("format"), metadata.get("part")) != (PART_FORMAT, part):
        held = metadata.get("part", "an encoder" if metadata.get("format") == FORMAT else "something else")
        raise EncoderFileError(
            f"{path} holds {held}, not a {part}: write one with `ssd-coordinator export --part {part}`"
        )
    return tensors


def _filled(skeleton: nn.Module, tensors: Mapping[str, NDArray[np.float32]], path: Path) -> nn.Module:
    """A module of the meta device on the CPU with a file's values, in evaluation mode."""
    import torch

    from ssd.models.allocate import allocated
    from ssd.models.flat import COUNTER, STATISTICS

    by_batch = not any(name.endswith(STATISTICS) for name in tensors)
    absent = (*STATISTICS, COUNTER) if by_batch else (COUNTER,)
    state = {name: value for name, value in skeleton.state_dict().items() if not name.endswith(absent)}
    # Before any memory is taken: what a file says of its sizes may be anything.
    fitting(tensors, {name: tuple(value.shape) for name, value in state.items()}, path)
    module = allocated(skeleton)
    if by_batch:
        for layer in module.modules():
            for name in absent:
                if name in dict(layer.named_buffers(recurse=False)):
                    setattr(layer, name, None)
    module.load_state_dict({name: torch.from_numpy(tensors[name].copy()) for name in state}, strict=False)
    return module.eval()
