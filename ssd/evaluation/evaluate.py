"""Every measure of one encoder in one call, as flat named numbers for a table, a log or a report.

Which numbers, on what (split and features are also in the records of the single measures):

==============================  =====================================================================
``linear_probe_all``            fit on all labels of the probe's training split, accuracy on its test split
``linear_probe_N_per_class``    the same with N labels per class: mean over seeded draws; ``..._std`` beside it
``knn_all``, ``knn_N_per_class``, ``knn_k``  weighted kNN, the same draws
``uniformity_global``           training split, all pairs
``uniformity_intra|inter``      training split, only with `clients`; pairs within one and of two clients
``effective_rank``              training split, features as they are
``alignment``                   training split, only with a views function
``*_samples``                   how many images each of these saw
==============================  =====================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ssd.data.source import ProbeData
from ssd.evaluation.features import Encode, features
from ssd.evaluation.knn import knn
from ssd.evaluation.linear_probe import linear_probe
from ssd.evaluation.quality import PairOfViews, alignment, effective_rank, uniformity
from ssd.random_stream import RandomStream


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationOptions:
    """How to evaluate; two encoders are comparable only under equal options."""

    features: str = "h"
    """What `encode` returns: `h` (encoder) or `z` (projector)."""
    device: torch.device | str = "cpu"
    batch: int = 512
    labels_per_class: tuple[int, ...] = (2,)
    draws: int = 5
    seed: int = 0
    knn_k: int = 20
    """The paper's code takes 200, with thousands of images per class."""
    inverse_penalty: float = 1.0
    views: PairOfViews | None = None
    quality_samples: int | None = None
    """At most this many training images (a seeded sample) for uniformity and alignment; None: all."""


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
    train_labels, test_labels = probe.train.labels, probe.test.labels
    if train_labels is None or test_labels is None:
        raise ValueError(f"the probe data {probe.name!r} has no labels")
    rows, owners = _quality_rows(len(probe.train), clients, options)
    train = features(encode, probe.train, device=options.device, batch=options.batch)
    test = features(encode, probe.test, device=options.device, batch=options.batch)

    values: dict[str, float] = {"train_samples": len(train), "test_samples": len(test)}
    for per_class in (None, *options.labels_per_class):
        name = "all" if per_class is None else f"{per_class}_per_class"
        linear = linear_probe(
            train, train_labels, test, test_labels,
            labels_per_class=per_class, draws=options.draws, seed=options.seed,
            inverse_penalty=options.inverse_penalty, features=options.features,
        )  # fmt: skip
        nearest = knn(
            train, train_labels, test, test_labels,
            k=options.knn_k, labels_per_class=per_class, draws=options.draws, seed=options.seed,
            features=options.features, device=options.device,
        )  # fmt: skip
        values[f"linear_probe_{name}"] = linear.accuracy
        values[f"knn_{name}"] = nearest.accuracy
        if per_class is not None:
            values[f"linear_probe_{name}_std"] = linear.std
            values[f"knn_{name}_std"] = nearest.std
            values[f"labelled_samples_{name}"] = linear.train_samples
    values["knn_k"] = options.knn_k

    spread = uniformity(train[rows], owners, kind=options.features, device=options.device)
    values["uniformity_global"] = spread.overall
    values["uniformity_samples"] = spread.samples
    if clients is not None:
        values["uniformity_intra"] = spread.intra
        values["uniformity_inter"] = spread.inter
        values["uniformity_clients"] = spread.clients
    rank = effective_rank(train, kind=options.features)
    values["effective_rank"] = rank.value
    values["effective_rank_samples"] = rank.samples
    if options.views is not None:
        drift = alignment(
            encode, probe.train, options.views,
            seed=options.seed, kind=options.features, device=options.device, batch=options.batch, indices=rows,
        )  # fmt: skip
        values["alignment"] = drift.value
        values["alignment_samples"] = drift.samples
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def _quality_rows(
    count: int, clients: Mapping[str, Sequence[int]] | None, options: EvaluationOptions
) -> tuple[list[int], list[int] | None]:
    """The training images whose geometry is measured, and the number of the client that owns each."""
    owner = dict.fromkeys(range(count), 0)
    if clients is not None:
        owner = {}
        for number, (client, indices) in enumerate(clients.items()):
            for index in indices:
                if not 0 <= index < count:
                    raise ValueError(f"client {client!r} owns image {index}, but the probe has {count}")
                if owner.setdefault(index, number) != number:
                    raise ValueError(f"image {index} belongs to two clients, one of them {client!r}")
    rows = sorted(owner)
    if options.quality_samples is not None and len(rows) > options.quality_samples:
        rows = sorted(RandomStream("quality-sample", options.seed).sample(rows, options.quality_samples))
    return rows, None if clients is None else [owner[row] for row in rows]
