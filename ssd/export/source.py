"""Takes an encoder file apart, once for all forms in which it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssd.data.images.source import ImageFormat
from ssd.export.encoder_file import EncoderFileError, bare_encoder, read_encoder
from ssd.models.flat import COUNTER, STATISTICS
from ssd.models.registry import ModelConfig
from ssd.settings import read

Json = Any


class FormImpossible(ValueError):
    """The encoder has no such form; the message says which it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An encoder file."""

    path: Path
    encoder: nn.Module
    """In evaluation mode; takes normalised images [B, C, S, S] and gives [B, D]."""
    model: ModelConfig
    image: ImageFormat
    mean: tuple[float, ...]
    """One value a channel; with `std`, what is taken from an image in [0, 1] and divided by."""
    std: tuple[float, ...]
    metadata: Mapping[str, str]
    provenance: Mapping[str, Json]
    """The provenance as the coordinator wrote it; empty if the file does not hold it."""
    config: Mapping[str, Json]
    """The method's configuration; empty if the file does not hold it."""

    @property
    def feature_dim(self) -> int:
        """Length D of the representation."""
        assert self.model.feature_dim is not None
        return self.model.feature_dim

    @property
    def normalises(self) -> bool:
        """Whether images in [0, 1] are changed before the first layer sees them."""
        return set(self.mean) != {0.0} or set(self.std) != {1.0}

    @property
    def has_statistics(self) -> bool:
        """False: BatchNorm normalises by the batch it is shown, so an image's features depend on its neighbours."""
        return any(name.endswith(STATISTICS) for name in self.encoder.state_dict())

    def state(self) -> dict[str, Tensor]:
        """The module's state dict; BatchNorm's batch counters, which no version holds, are 0."""
        return {
            name: torch.zeros_like(value) if name.endswith(COUNTER) else value.detach().clone()
            for name, value in self.encoder.state_dict().items()
        }

    def features(self, images: Tensor) -> Tensor:
        """[B, C, S, S] float32 in [0, 1] to [B, D]: what every form has to give."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        with torch.no_grad():
            features: Tensor = self.encoder((images - mean) / std)
        return features


def read_source(path: Path) -> Source:
    """Read and check an encoder file.

    Raises:
        EncoderFileError: it is none, or what it says of itself cannot be used.

    """
    encoder, image, normalise = bare_encoder(path)
    metadata = read_encoder(path)[1]
    values = (*normalise.mean, *normalise.std)
    if not all(math.isfinite(value) for value in values):
        raise EncoderFileError(f"{path}: its normalisation has values that are not finite: {values}")
    each = image.channels // len(normalise.mean)
    return Source(
        path=path,
        encoder=encoder,
        model=read(ModelConfig, json.loads(metadata["model"]), "model").resolved(),
        image=image,
        mean=normalise.mean * each,
        std=normalise.std * each,
        metadata=metadata,
        provenance=_table(path, metadata, "provenance"),
        config=_table(path, metadata, "config"),
    )


def _table(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Json]:
    """A JSON object among the metadata; empty if it is not there."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise EncoderFileError(f"{path}: its {key!r} is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise EncoderFileError(f"{path}: its {key!r} is no JSON object")
    return value
