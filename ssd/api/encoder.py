"""An exported encoder, and what it makes of images.

An encoder takes squares of one size. `embed` brings files to that size in the way training does, and refuses arrays
that are not what the encoder was trained on: a wrong size or range gives features that look right and mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssd.api.rows import facts_html
from ssd.data.images.decode import Decoding, RefusedImageError, decode
from ssd.data.images.deep import Window
from ssd.data.images.errors import DataError
from ssd.data.images.folder import FolderImages, FolderOptions
from ssd.data.images.source import ImageFormat, ImageSource, TensorImages
from ssd.evaluation.features import Encode, features, module_encoder
from ssd.evaluation.measures import Track, untracked
from ssd.export.encoder_file import feature_dim_of, read_encoder
from ssd.export.encoder_file import load_encoder as load_module


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """An encoder file, loaded."""

    path: Path
    module: nn.Module
    """[B, C, S, S] float32 in [0, 1] -> [B, D] float32, in evaluation mode; the method's normalisation is part of it."""
    image: ImageFormat
    """Size S and channels C of the squares it takes."""
    feature_dim: int
    """D, the length of a feature."""
    metadata: Mapping[str, str]
    """What the file says of itself: model, run, version, digest, …"""

    def __repr__(self) -> str:
        side, channels = self.image.size, self.image.channels
        return f"Encoder({str(self.path)!r}: [N, {channels}, {side}, {side}] -> [N, {self.feature_dim}])"

    def _repr_html_(self) -> str:
        shown = {
            "images": f"{self.image.size} × {self.image.size}, {self.image.channels} channel(s)",
            "features": self.feature_dim,
            **{name: self.metadata[name] for name in ("model", "run", "version", "trained_on") if name in self.metadata},
        }  # fmt: skip
        return facts_html(f"Encoder {self.path.name}", shown)


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """Features of images."""

    features: NDArray[np.float32]
    """[N, D], in the order of `names`."""
    names: tuple[str, ...]
    """Of a folder: paths relative to it; of a file: its name; of an array: "0", "1", …"""
    left_out: str
    """What of a folder was not used and why; empty if everything was."""

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def _repr_html_(self) -> str:
        shown = {
            "images": len(self),
            "features": self.features.shape[1],
            "left out": self.left_out or "nothing",
        }
        return facts_html("Embeddings", shown)


def load_encoder(path: Path | str) -> Encoder:
    """Read an encoder file that this project exported.

    Args:
        path: the `.safetensors` file.

    Raises:
        EncoderFileError: not such a file, or it does not fit its own description.
    """
    file = Path(path)
    module, image = load_module(file)
    return Encoder(
        path=file,
        module=module,
        image=image,
        feature_dim=feature_dim_of(file),
        metadata=MappingProxyType(read_encoder(file)[1]),
    )


def embed(
    encoder: Encoder,
    images: Path | str | Tensor | NDArray[Any],
    *,
    device: str = "cpu",
    batch: int = 256,
    min_side: int | None = None,
    window: tuple[float, float] | None = None,
    track: Track = untracked,
) -> Embeddings:
    """Features of images.

    Args:
        encoder: from `load_encoder`.
        images: a folder (with its sub-folders) or one image file, decoded, scaled and cropped to the encoder's square;
            or an array [N, C, S, S] or [C, S, S] of exactly the encoder's size: uint8, or floating point in [0, 1].
        device: where to compute: `cpu`, `cuda`, `cuda:N`.
        batch: images at a time; it bounds the memory.
        min_side: images of a folder with a shorter side are left out; None: the encoder's size.
        window: for files of more than 8 bits: the values of black and white, as in training (`[data] window`).
        track: is told how far it is: ("features", done, of).

    Raises:
        DataError: no usable image; or an array of another shape, type or range than the encoder takes.
        ValueError: the features are not finite.
    """
    if isinstance(images, (str, Path)):
        source, names, left_out = _opened(Path(images), encoder.image, min_side, window)
    else:
        # A read-only array, as Pillow's are, is copied: torch takes none.
        own = images if isinstance(images, Tensor) or images.flags.writeable else images.copy()
        pixels = _checked(torch.as_tensor(own), encoder.image)
        names, left_out = tuple(map(str, range(len(pixels)))), ""
        if pixels.dtype != torch.uint8:
            return _of_floats(encoder, pixels, names, device, batch)
        source = TensorImages(pixels, None)
    made = features(_encode(encoder, device), source, device=device, batch=batch, track=track)
    return Embeddings(features=made.numpy(), names=names, left_out=left_out)


def _encode(encoder: Encoder, device: str) -> Encode:
    return module_encoder(encoder.module.to(device), device)


def _opened(
    path: Path, image: ImageFormat, min_side: int | None, window: Window | None
) -> tuple[ImageSource, tuple[str, ...], str]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (looked in {Path.cwd()})")
    if path.is_dir():
        # No margin: training crops out of a larger square, an encoder sees the whole centre at its own size.
        folder = FolderImages(path, image, FolderOptions(margin=1.0, min_side=min_side, window=window))
        report = folder.report
        left = report.refused or report.others or report.litter or report.unreadable_folders or report.narrow
        return folder, tuple(file.relative for file in folder.files), str(report) if left else ""
    try:
        square = decode(path, Decoding(side=image.size, channels=image.channels, window=window))
    except RefusedImageError as error:
        raise DataError(f"{path} cannot be used: {error}") from error
    return TensorImages(torch.tensor(square[None]), None), (path.name,), ""


def _checked(images: Tensor, image: ImageFormat) -> Tensor:
    """[N, C, S, S] as the encoder takes them."""
    wanted = f"[N, {image.channels}, {image.size}, {image.size}]"
    batch = images[None] if images.ndim == 3 else images
    shape = (image.channels, image.size, image.size)
    if batch.ndim != 4 or tuple(batch.shape[1:]) != shape:
        hint = ""
        if batch.ndim == 4 and tuple(batch.shape[1:]) == (*shape[1:], shape[0]):
            hint = "; the channels come first: images.transpose(0, 3, 1, 2)"
        elif batch.ndim == 4 and batch.shape[1] == image.channels:
            hint = "; scale them to this size, or give a folder of files, which is scaled as in training"
        raise DataError(f"this encoder takes images {wanted}, not {list(images.shape)}{hint}")
    if len(batch) == 0:
        raise DataError("there are no images in this array")
    if batch.dtype == torch.uint8:
        return batch
    if not batch.dtype.is_floating_point:
        raise DataError(
            f"images are uint8, or floating point in [0, 1], not {str(batch.dtype).removeprefix('torch.')}"
        )
    low, high = float(batch.min()), float(batch.max())
    if not (low >= 0.0 and high <= 1.0):  # also not-a-number
        hint = "; these look like bytes: pass them as uint8" if low >= 0.0 and 1.0 < high <= 255.0 else ""
        raise DataError(f"floating-point images lie in [0, 1], these reach from {low:g} to {high:g}{hint}")
    return batch.to(torch.float32)


def _of_floats(
    encoder: Encoder, images: Tensor, names: tuple[str, ...], device: str, batch: int
) -> Embeddings:
    encode = _encode(encoder, device)
    pieces = [images[start : start + batch] for start in range(0, len(images), batch)]
    parts = [encode(each).detach().flatten(1).to("cpu", torch.float32) for each in pieces]
    made = torch.cat(parts).clone()
    if not bool(torch.isfinite(made).all()):
        raise ValueError("the encoder gives features that are not finite; it has diverged")
    return Embeddings(features=made.numpy(), names=names, left_out="")
