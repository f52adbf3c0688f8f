"""The geometry of a representation, computed exactly and in float64.

* alignment: E ||z - z+||^2 over two augmentations of one image (lower is better);
* uniformity: -log E exp(-2 ||u - v||^2) over pairs of different images (higher is better; just below 4 for an
  even spread in high dimension): of all pairs, of pairs inside one client, and of pairs of two different
  clients, the part that SSD exists to improve;
* effective rank: exp of the entropy of the normalised singular values (Roy & Vetterli, 2007).

Sources: Wang & Isola 2020; arXiv 2508.01251 §2, §4 and A.2. Vectors are L2-normalised where the measure says
so. The diagonal (an image with itself) never counts: it
would add 1/n to the mean and hide a good spread.

A feature that is exactly zero (an encoder with a ReLU at its end gives them) has no direction, and stays the zero
vector among unit vectors. Distances are those of the vectors as they then are, from their norms: two zeros are 0
apart, a zero and a unit vector 1. So zeros count as what they are for every measure of spread, images that collapsed
into one point; and they do so here, where features are pooled, as in the sums of clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ssd.data.images.source import ImageSource
from ssd.evaluation.features import Encode, batches
from ssd.random_stream import RandomStream

T = 2.0
"""The kernel's sharpness t of arXiv 2508.01251's code (Eq. 4 leaves it open)."""

PairOfViews: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""uint8 images [B, C, H, W] and a CPU generator to [2B, C, H, W]: a view of every image, then a second of every
image, as `ssd.data.views.views.Views.pair` makes them."""


@dataclass(frozen=True, slots=True)
class Directions:
    """Features as unit vectors."""

    unit: Tensor
    """float64 [N, D]: f / ||f||, or 0 where f is 0."""
    present: Tensor
    """float64 [N]: the squared norms of `unit`, exactly 1 or 0."""

    @property
    def zeros(self) -> int:
        """How many features are exactly zero."""
        return len(self.present) - int(self.present.sum())

    def rows(self, rows: slice) -> Directions:
        """Some of them."""
        return Directions(self.unit[rows], self.present[rows])


def directions(features: Tensor) -> Directions:
    """The features' directions.

    Args:
        features: [N, ...]; trailing dimensions are flattened.
    """
    flat = features.detach().flatten(1).to(torch.float64)
    # By the largest value first: squares of very small or large numbers would leave float64's range.
    largest = flat.abs().amax(dim=1, keepdim=True)
    present = (largest > 0).to(torch.float64)
    scaled = flat / largest.where(largest > 0, 1.0)
    norms = scaled.norm(dim=1, keepdim=True)
    return Directions(scaled / norms.where(largest > 0, 1.0), present.squeeze(1))


def kernel(left: Directions, right: Directions, t: float) -> Tensor:
    """exp(-t ||u - v||^2) for every pair, float64 [N, M]."""
    # ||u - v||^2 = ||u||^2 + ||v||^2 - 2 u.v
    half = (left.present[:, None] + right.present[None, :]) / 2.0
    return (left.unit @ right.unit.T).sub_(half).mul_(2.0 * t).exp_()


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniformity:
    """-log E exp(-2 ||u - v||^2), split by who owns the two images; NaN if no such pair exists."""

    intra: float
    """Over all pairs of one client (a client with more images has more pairs and more weight)."""
    inter: float
    """Over all pairs of two different clients."""
    overall: float
    features: str
    split: str
    samples: int
    clients: int
    zeros: int
    """Features that are exactly zero: the head of this module says how they count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One number and what it was measured on."""

    value: float
    features: str
    split: str
    samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """Describes the direction that all images have in common."""

    direction: float
    """Length of the mean of the unit vectors, 0 to 1: 1 if all point the same way."""
    zeros: float
    """Share of exact zeros among all values, 0 to 1: how sparse a rectified representation is."""


def shared(features: Tensor) -> Shared:
    """Measures how much of a low uniformity comes from one direction that all images share.

    A rectified h has no negative values, so every h has a part along (1, ..., 1); the softmax of projector distillation
    does not see a constant added to all values. Uniformity of h sees it, uniformity around the mean does not.

    Args:
        features: float [N, D].
    """
    mean = directions(features).unit.mean(dim=0)
    return Shared(direction=float(mean.norm()), zeros=float((features == 0).double().mean()))


def uniformity(
    features: Tensor,
    owners: Sequence[int] | None = None,
    *,
    kind: str = "h",
    split: str = "train",
    device: torch.device | str = "cpu",
    chunk: int = 2048,
) -> Uniformity:
    """Exact uniformity of the pooled features, apart for pairs within and between clients.

    Every unordered pair is visited once, block by block: memory is the features in float64 plus a few
    `chunk` x `chunk` blocks, whatever the number of images.

    Args:
        features: float [N, D], normalised here.
        owners: which client owns each row, as small integers [N]; None: one client owns all.
        kind: `h` or `z`, for the record.
        split: which images these are, for the record.
        device: where the pairs are computed.
        chunk: rows of a block.
    """
    count = len(features)
    owner = torch.zeros(count, dtype=torch.int64) if owners is None else torch.as_tensor(owners).long()
    if len(owner) != count:
        raise ValueError(f"{len(owner)} owners for {count} features")
    # Sorted by client, so that only blocks near the diagonal hold pairs of one client.
    order = torch.argsort(owner, stable=True)
    owner = owner[order].to(device)
    points = directions(features[order].to(device))
    same = different = 0.0
    pieces = list(batches(count, chunk))
    for number, rows in enumerate(pieces):
        left, left_owner = points.rows(slice(rows.start, rows.stop)), owner[rows.start : rows.stop]
        for columns in pieces[number:]:
            right_owner = owner[columns.start : columns.stop]
            values = kernel(left, points.rows(slice(columns.start, columns.stop)), T)
            if rows == columns:
                values = values.triu_(diagonal=1)
            total = float(values.sum())
            shared = 0.0
            if bool(left_owner[-1] >= right_owner[0]):
                shared = float(values.mul_(left_owner[:, None] == right_owner[None, :]).sum())
            same += shared
            different += total - shared
    sizes = torch.bincount(owner).tolist() if count else []
    same_pairs = sum(size * (size - 1) // 2 for size in sizes)
    all_pairs = count * (count - 1) // 2
    return Uniformity(
        intra=_minus_log_mean(same, same_pairs),
        inter=_minus_log_mean(different, all_pairs - same_pairs),
        overall=_minus_log_mean(same + different, all_pairs),
        features=kind,
        split=split,
        samples=count,
        clients=sum(size > 0 for size in sizes),
        zeros=points.zeros,
    )


def alignment(
    encode: Encode,
    source: ImageSource,
    views: PairOfViews,
    *,
    seed: int = 0,
    kind: str = "h",
    split: str = "train",
    device: torch.device | str = "cpu",
    batch: int = 512,
    indices: Sequence[int] | None = None,
) -> Measure:
    """Mean squared distance of the L2-normalised features of two views of one image.

    The views are drawn from a generator seeded by `seed` alone, so encoders are compared on the same
    augmentations (in batches of the same size).
    """
    chosen = range(len(source)) if indices is None else indices
    if len(chosen) == 0:
        raise ValueError("there are no images to measure the alignment of")
    generator = torch.Generator().manual_seed(RandomStream("evaluation-views", seed).seed64())
    total = 0.0
    for rows in batches(len(chosen), batch):
        images = source.batch(chosen[rows.start : rows.stop]).to(device)
        with torch.inference_mode():
            first, second = directions(encode(views(images, generator))).unit.to("cpu").chunk(2)
        total += float((first - second).square().sum())
    return Measure(value=total / len(chosen), features=kind, split=split, samples=len(chosen))


def effective_rank(features: Tensor, *, kind: str = "h", split: str = "train", chunk: int = 8192) -> Measure:
    """exp(entropy of sigma_i / sum sigma) of the N x D feature matrix, neither centred nor normalised.

    The singular values come from the eigenvalues of Z^T Z (their squares), which is D x D and a sum over
    images, so that a federated sum gives the same number. They enter not squared (Roy & Vetterli; arXiv
    2508.01251 A.2): shares of the eigenvalues themselves would give a smaller rank.
    """
    count, dimension = features.flatten(1).shape
    gram = torch.zeros(dimension, dimension, dtype=torch.float64)
    for rows in batches(count, chunk):
        part = features[rows.start : rows.stop].flatten(1).to("cpu", torch.float64)
        gram += part.T @ part
    return Measure(value=effective_rank_of_gram(gram), features=kind, split=split, samples=count)


def effective_rank_of_gram(gram: Tensor) -> float:
    """The effective rank of Z from the float64 matrix Z^T Z [D, D]; 0 for a zero matrix."""
    eigenvalues = torch.linalg.eigvalsh(gram.to(torch.float64))
    # Below this the eigenvalues are rounding; their square roots would not be small.
    floor = float(eigenvalues.max().clamp_min(0)) * len(gram) * torch.finfo(torch.float64).eps
    singular = eigenvalues[eigenvalues > floor].sqrt()
    if len(singular) == 0:
        return 0.0
    share = singular / singular.sum()
    return math.exp(-float((share * share.log()).sum()))


def _minus_log_mean(total: float, pairs: int) -> float:
    # The kernel of vectors no longer than 1 is at least e^-8, so a sum over pairs is never zero.
    return -math.log(total / pairs) if pairs else math.nan
