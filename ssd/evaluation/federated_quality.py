"""A client's part in measuring representation quality: the sums of `ssd.updates.quality_sums` over its own images.

Which images, and their views, depend on the run and the client only: from version to version the same images are
looked at, so that the figures differ by what the model learnt. Everything is computed in float64 on the CPU; nothing
here touches the model's weights, its statistics or a global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssd.data.images.source import ImageSource
from ssd.data.views.views import Views
from ssd.evaluation.features import batches, module_encoder
from ssd.evaluation.quality import T, directions, kernel
from ssd.method.protocol import ClientTask
from ssd.random_stream import RandomStream
from ssd.updates.declaration import QualityDeclaration
from ssd.updates.quality_sums import MAX_NORM, frequencies_name, name_of, split_gram, statistics

Sums: TypeAlias = dict[str, NDArray[np.float64]]
EncodeKinds: TypeAlias = Callable[[Tensor], Mapping[str, Tensor]]
"""Images [B, C, S, S] (uint8, or float in [0, 1]) to the features [B, ...] of every declared kind."""
_BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityOptions:
    """The settings under a method's `quality` key."""

    features: tuple[Literal["h", "z"], ...] = ("h", "z")
    """Which features: h (encoder), z (projector)."""
    frequencies: int = 4096
    images: int = 512
    min_images: int = 64

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features must name h, z or both once, got {list(self.features)}")
        if not 2 <= self.min_images <= self.images:
            raise ValueError(
                f"min_images must be 2 to images ({self.images}), got {self.min_images}: a sum over one image is"
                " that image's feature"
            )

    def declaration(self, dimensions: Mapping[str, int]) -> QualityDeclaration:
        """Declares what a client reports for features of these dimensions.

        Raises:
            ValueError: there are too few frequencies for them.
        """
        features: dict[str, int] = {kind: dimensions[kind] for kind in self.features}
        least = 2 * max(features.values())
        if self.frequencies < least:
            raise ValueError(
                f"quality.frequencies must be at least twice the longest feature, {least}, got {self.frequencies}"
            )
        return QualityDeclaration(
            features=features,
            frequencies=self.frequencies,
            t=T,
            images=self.images,
            min_images=self.min_images,
            moments=True,
        )


def encoder_and_head(parts: Mapping[str, nn.Module], device: torch.device) -> EncodeKinds:
    """The part `encoder` gives h, `projector` on top of it z (h again without one); in evaluation mode."""
    encoder = module_encoder(parts["encoder"], device)
    head = module_encoder(parts["projector"], device) if "projector" in parts else None

    def encode(images: Tensor) -> Mapping[str, Tensor]:
        h = encoder(images)
        return {"h": h, "z": h if head is None else head(h)}

    return encode


def chosen_images(quality: QualityDeclaration, run_seed: int, client: str, count: int) -> list[int]:
    """Which of a client's `count` images are looked at, ascending; none if it has too few."""
    if count < quality.min_images:
        return []
    stream = RandomStream("quality-images", run_seed, client)
    return sorted(stream.sample(range(count), min(count, quality.images)))


def client_sums(
    quality: QualityDeclaration,
    encode: EncodeKinds,
    views: Views,
    source: ImageSource,
    task: ClientTask,
    *,
    size: int,
) -> Sums:
    """The declared sums for one client.

    Args:
        quality: what the method declares.
        encode: of the version the round starts from, on `task.device`.
        views: what alignment compares two of.
        source: the client's images; they may be larger than `size`.
        task: the client's; its artefacts hold the frequencies.
        size: pixels of the images the encoder takes; larger ones are cut to their centre.

    Raises:
        ValueError: an artefact is missing or has another shape.
    """
    frequencies = {
        kind: _frequencies(quality, kind, dimension, task.artefacts)
        for kind, dimension in quality.features.items()
    }
    rows = chosen_images(quality, task.run_seed, task.client_id, len(source))
    features, pairs = _features(quality, encode, views, source, task, rows, size) if rows else ({}, {})
    sums = nothing(quality)
    for kind, found in features.items():
        if _usable(found, pairs[kind]):
            sums |= sums_of(quality, kind, found, pairs[kind], frequencies[kind])
    return sums


def sums_of(
    quality: QualityDeclaration, kind: str, features: Tensor, pairs: Tensor, frequencies: Tensor
) -> Sums:
    """The sums of one kind of feature.

    Args:
        quality: gives the kernel's sharpness, and whether moments are wanted.
        kind: `h` or `z`.
        features: [n, d] as they are.
        pairs: [n, 2, d] the features of two views of every image.
        frequencies: [D, d].
    """
    features = features.to(torch.float64)
    count = len(features)
    own = directions(features)
    unit = own.unit
    first, second = (directions(view).unit for view in pairs.unbind(1))
    phases = unit @ frequencies.to(torch.float64).T
    real, imaginary = phases.cos().sum(0), phases.sin().sum(0)
    # The diagonal is left out, not subtracted.
    among = kernel(own, own, quality.t).fill_diagonal_(0.0)
    row, column = torch.triu_indices(features.shape[1], features.shape[1])
    values = {
        "images": torch.tensor(float(count)),
        "images_squared": torch.tensor(float(count) ** 2),
        "clients": torch.tensor(1.0),
        "alignment": (first - second).square().sum(),
        "kernel_pairs": among.sum(),
        "kernel": torch.cat([real, imaginary]),
        "kernel_squared": real.square() + imaginary.square(),
        "mean": unit.sum(0),
    }
    gram = (features.T @ features)[row, column].numpy()
    found = {"gram": gram}
    if quality.moments:
        second = unit.T @ unit
        values |= {
            "unit_gram": second[row, column],
            "mean_squared": unit.sum(0).square().sum(),
            "gram_squared": second.square().sum(),
        }
        found["gram"], found["gram_rest"] = split_gram(gram)
    found |= {which: value.to(torch.float64).numpy() for which, value in values.items()}
    return {name_of(kind, which): value for which, value in found.items()}


def _features(
    quality: QualityDeclaration,
    encode: EncodeKinds,
    views: Views,
    source: ImageSource,
    task: ClientTask,
    rows: Sequence[int],
    size: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per kind the features [n, d] of the images themselves, and [n, 2, d] of two views of each."""
    generator = torch.Generator().manual_seed(
        RandomStream("quality-views", task.run_seed, task.client_id).seed64()
    )
    plain: dict[str, list[Tensor]] = {kind: [] for kind in quality.features}
    viewed: dict[str, list[Tensor]] = {kind: [] for kind in quality.features}
    for piece in batches(len(rows), _BATCH):
        images = source.batch(rows[piece.start : piece.stop]).to(task.device)
        of_images = encode(_centre(images, size))
        of_views = encode(views.pair(images, generator))
        for kind in quality.features:
            plain[kind].append(_flat(of_images[kind]))
            viewed[kind].append(torch.stack(_flat(of_views[kind]).chunk(2), dim=1))
    return (
        {kind: torch.cat(parts) for kind, parts in plain.items()},
        {kind: torch.cat(parts) for kind, parts in viewed.items()},
    )


def _centre(images: Tensor, size: int) -> Tensor:
    edge = (images.shape[-1] - size) // 2
    return images[..., edge : edge + size, edge : edge + size]


def _flat(features: Tensor) -> Tensor:
    return features.detach().flatten(1).to("cpu", torch.float64)


def _usable(features: Tensor, pairs: Tensor) -> bool:
    """Whether an exact sum may hold them: all finite, and no norm beyond the declared one."""
    return bool(torch.isfinite(pairs).all()) and bool((features.norm(dim=1) <= MAX_NORM).all())


def nothing(quality: QualityDeclaration) -> Sums:
    """Makes the sums that a client reports if it does not take part: zeros."""
    return {each.name: np.zeros(each.shape) for each in statistics(quality)}


def _frequencies(
    quality: QualityDeclaration, kind: str, dimension: int, artefacts: Mapping[str, NDArray[np.float32]]
) -> Tensor:
    name = frequencies_name(kind)
    found, shape = artefacts.get(name), (quality.frequencies, dimension)
    if found is None or found.shape != shape:
        raise ValueError(
            f"the task should carry an artefact {name!r} of shape {shape}, but has {sorted(artefacts)}"
        )
    # torch.tensor copies: the array may be a read-only mapping, which from_numpy warns about.
    return torch.tensor(found)
