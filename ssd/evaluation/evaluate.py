"""Every measure of one representation in one call, as flat named numbers for a table, a log or a report.

Which numbers, on what (split and features are also in the records of the single measures):

=================================  ==================================================================
``linear_probe_all``               fit on all labels of the probe's training split, accuracy on its test split
``linear_probe_N_per_class``       the same with N labels per class: mean over seeded draws; ``..._std`` beside it
``linear_probe_paper``             the paper's recipe, last epoch
``linear_probe_selected``          recipe chosen on held-out training labels, which are
                                   ``..._lr|weight_decay|epochs|validation``
``knn_all``, ``knn_N_per_class``   weighted kNN with k = ``knn_k``, the same draws
``knn_paper``                      the same with k = 200
``uniformity_global``              all pairs
``uniformity_intra|inter``         training split, only with `clients`; pairs within one and of two clients
``effective_rank``                 features as they are
``alignment``                      only with a views function
``*_samples``                      how many images each of these saw
``centred_...``                    uniformity and effective rank of the features minus their mean
``common_direction``               length of the mean unit vector
``zero_share``                     share of exact zeros among the features' values
``zero_features``                  how many features are zero throughout; absent if none is
=================================  ==================================================================

The last eight are measured on the training split; of the test split they are called ``test_...``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.data.images.source import ImageSource, ProbeData
from ssd.evaluation.features import Encode, features
from ssd.evaluation.gradient_probe import paper_probe, selected_probe
from ssd.evaluation.knn import knn
from ssd.evaluation.linear_probe import linear_probe
from ssd.evaluation.measures import DEFAULT_MEASURES, Track, untracked
from ssd.evaluation.quality import PairOfViews, alignment, effective_rank, shared, uniformity
from ssd.random_stream import RandomStream

PAPER_K = 200
"""Neighbours that vote in the monitor of arXiv 2508.01251's code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationOptions:
    """The options of an evaluation; two encoders are comparable only under equal options."""

    features: str = "h"
    """What `encode` returns: `h` (encoder) or `z` (projector)."""
    device: torch.device | str = "cpu"
    batch: int = 512
    labels_per_class: tuple[int, ...] = (2,)
    draws: int = 5
    seed: int = 0
    knn_k: int = 20
    """Far fewer than the paper's code takes, for sets without thousands of images per class."""
    inverse_penalty: float = 1.0
    views: PairOfViews | None = None
    quality_samples: int | None = None
    """At most this many images (a seeded sample) for uniformity and alignment; None: all."""
    measures: tuple[str, ...] = DEFAULT_MEASURES
    """Which of `ssd.evaluation.measures.MEASURES`; those that train the encoder are not done here."""
    splits: tuple[str, ...] = ("train",)
    """Whose geometry is measured: `train`, `test` or both."""
    track: Track = untracked


def evaluate_encoder(
    encode: Encode,
    probe: ProbeData,
    clients: Mapping[str, Sequence[int]] | None = None,
    options: EvaluationOptions | None = None,
) -> dict[str, float]:
    """All measures of one encoder, as described at the top of this module.

    Args:
        encode: uint8 images [B, C, H, W] on `options.device` to features [B, D].
        probe: labelled images; the training split is what labels are taken from.
        clients: indices into the *training split* per client, such as a partition's; images that no client
            owns take part in uniformity and alignment only when `clients` is None.
        options: None: the defaults.

    Raises:
        ValueError: an unlabelled probe, a client's index out of range, or an encoder that has diverged.
    """
    options = options or EvaluationOptions()
    check(probe, clients)
    train, test = both_splits(encode, probe, options)
    return evaluate_features(train, test, encode, probe, clients, options)


def check(probe: ProbeData, clients: Mapping[str, Sequence[int]] | None) -> None:
    """Refuse what would be refused after the features were computed.

    Raises:
        ValueError: an unlabelled probe, or clients that do not fit its training split.
    """
    labels_of(probe)
    _owners(len(probe.train), clients)


def both_splits(encode: Encode, probe: ProbeData, options: EvaluationOptions) -> tuple[Tensor, Tensor]:
    """Features of the training and the test images, float32 [N, D] and [M, D]."""
    train, test = (
        features(encode, source, device=options.device, batch=options.batch, track=options.track)
        for source in (probe.train, probe.test)
    )
    return train, test


def evaluate_features(
    train: Tensor,
    test: Tensor,
    encode: Encode,
    probe: ProbeData,
    clients: Mapping[str, Sequence[int]] | None,
    options: EvaluationOptions,
) -> dict[str, float]:
    """`evaluate_encoder` with the features of `both_splits` at hand; `encode` is needed for alignment alone."""
    train_labels, test_labels = labels_of(probe)
    values: dict[str, float] = {"train_samples": len(train), "test_samples": len(test)}
    values |= _accuracies(train, train_labels, test, test_labels, options)
    for split in options.splits:
        on_train = split == "train"
        points, source = (train, probe.train) if on_train else (test, probe.test)
        owned = clients if on_train else None
        measured: dict[str, float] = {}
        if "quality" in options.measures:
            measured |= _quality(points, source, encode, split, owned, options)
        if "centred" in options.measures:
            measured |= _centred(points, split, owned, options)
        values |= measured if on_train else {f"test_{name}": value for name, value in measured.items()}
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def labels_of(probe: ProbeData) -> tuple[Tensor, Tensor]:
    """The training and the test labels.

    Raises:
        ValueError: there are none.
    """
    if probe.train.labels is None or probe.test.labels is None:
        raise ValueError(f"the probe data {probe.name!r} has no labels")
    return probe.train.labels, probe.test.labels


def _accuracies(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, options: EvaluationOptions
) -> dict[str, float]:
    data, wanted = (train, train_labels, test, test_labels), options.measures
    values: dict[str, float] = {}
    few = tuple(options.labels_per_class) if "few_labels" in wanted else ()
    for per_class in (None, *few):
        name = "all" if per_class is None else f"{per_class}_per_class"
        if per_class is not None or "linear_probe" in wanted:
            options.track(f"linear probe, {name.replace('_', ' ')}", 0, 1)
            linear = linear_probe(
                *data, labels_per_class=per_class, draws=options.draws, seed=options.seed,
                inverse_penalty=options.inverse_penalty, features=options.features,
            )  # fmt: skip
            values[f"linear_probe_{name}"] = linear.accuracy
            if per_class is not None:
                values[f"linear_probe_{name}_std"] = linear.std
                values[f"labelled_samples_{name}"] = linear.train_samples
        if per_class is not None or "knn" in wanted:
            nearest = knn(
                *data, k=options.knn_k, labels_per_class=per_class, draws=options.draws, seed=options.seed,
                features=options.features, device=options.device,
            )  # fmt: skip
            values["knn_k"] = options.knn_k
            values[f"knn_{name}"] = nearest.accuracy
            if per_class is not None:
                values[f"knn_{name}_std"] = nearest.std
    if "knn_paper" in wanted:
        values["knn_paper"] = knn(*data, k=PAPER_K, features=options.features, device=options.device).accuracy
    if "linear_probe_paper" in wanted:
        paper = paper_probe(*data, seed=options.seed, device=options.device, track=options.track)
        values["linear_probe_paper"] = paper.accuracy
    if "linear_probe_selected" in wanted:
        chosen = selected_probe(*data, seed=options.seed, device=options.device, track=options.track)
        assert chosen.validation_accuracy is not None
        values |= {
            "linear_probe_selected": chosen.accuracy,
            "linear_probe_selected_validation": chosen.validation_accuracy,
            "linear_probe_selected_lr": chosen.recipe.lr,
            "linear_probe_selected_weight_decay": chosen.recipe.weight_decay,
            "linear_probe_selected_epochs": chosen.recipe.epochs,
        }
    return values


def _quality(
    points: Tensor,
    source: ImageSource,
    encode: Encode,
    split: str,
    clients: Mapping[str, Sequence[int]] | None,
    options: EvaluationOptions,
) -> dict[str, float]:
    rows = _quality_rows(len(points), clients, options)[0]
    values = _spread(points, split, clients, options)
    if options.views is not None:
        options.track("alignment", 0, 1)
        drift = alignment(
            encode, source, options.views, seed=options.seed, kind=options.features, split=split,
            device=options.device, batch=options.batch, indices=rows,
        )  # fmt: skip
        values["alignment"] = drift.value
        values["alignment_samples"] = drift.samples
    return values


def _centred(
    points: Tensor, split: str, clients: Mapping[str, Sequence[int]] | None, options: EvaluationOptions
) -> dict[str, float]:
    common = shared(points)
    around = _spread(points - points.mean(dim=0), split, clients, options)
    named = {f"centred_{name}": value for name, value in around.items()}
    return {**named, "common_direction": common.direction, "zero_share": common.zeros}


def _spread(
    points: Tensor, split: str, clients: Mapping[str, Sequence[int]] | None, options: EvaluationOptions
) -> dict[str, float]:
    rows, owners = _quality_rows(len(points), clients, options)
    options.track("uniformity", 0, 1)
    spread = uniformity(points[rows], owners, kind=options.features, split=split, device=options.device)
    values: dict[str, float] = {
        "uniformity_global": spread.overall,
        "uniformity_samples": spread.samples,
        **({"zero_features": spread.zeros} if spread.zeros else {}),
    }
    if clients is not None:
        values["uniformity_intra"] = spread.intra
        values["uniformity_inter"] = spread.inter
        values["uniformity_clients"] = spread.clients
    rank = effective_rank(points, kind=options.features, split=split)
    return {**values, "effective_rank": rank.value, "effective_rank_samples": rank.samples}


def _quality_rows(
    count: int, clients: Mapping[str, Sequence[int]] | None, options: EvaluationOptions
) -> tuple[list[int], list[int] | None]:
    """The images whose geometry is measured, and the number of the client that owns each."""
    owner = _owners(count, clients)
    rows = sorted(owner)
    if options.quality_samples is not None and len(rows) > options.quality_samples:
        rows = sorted(RandomStream("quality-sample", options.seed).sample(rows, options.quality_samples))
    return rows, None if clients is None else [owner[row] for row in rows]


def _owners(count: int, clients: Mapping[str, Sequence[int]] | None) -> dict[int, int]:
    """The number of the client that owns each image; without clients one owns all."""
    if clients is None:
        return dict.fromkeys(range(count), 0)
    owner: dict[int, int] = {}
    for number, (client, indices) in enumerate(clients.items()):
        for index in indices:
            if not 0 <= index < count:
                raise ValueError(f"client {client!r} owns image {index}, but the probe has {count}")
            if owner.setdefault(index, number) != number:
                raise ValueError(f"image {index} belongs to two clients, one of them {client!r}")
    return owner
