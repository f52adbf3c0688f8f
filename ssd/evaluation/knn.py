"""Weighted k-nearest-neighbour accuracy on L2-normalised features.

Every training neighbour votes for its class with weight exp(cosine / T), T = 0.1 (Wu et al., 2018, the usual
monitor of self-supervised training; arXiv 2508.01251's code uses k = 200).

The cosine of unit vectors is 1 - ||u - v||^2 / 2. A feature that is exactly zero stays the zero vector, as in
`ssd.evaluation.quality`, so that this is 1/2 between it and a unit vector, and 1 between two zero features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssd.data.images.few_labels import draw
from ssd.evaluation.features import batches
from ssd.evaluation.linear_probe import ProbeResult, spread


def knn(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.1,
    labels_per_class: int | None = None,
    draws: int = 5,
    seed: int = 0,
    features: str = "h",
    device: torch.device | str = "cpu",
) -> ProbeResult:
    """Accuracy of the weighted vote of the `k` most similar training images (all of them if there are fewer).

    Args:
        train: float [N, D] features of the training split.
        train_labels: int64 [N].
        test: float [M, D] features of the test split.
        test_labels: int64 [M].
        k: neighbours that vote.
        temperature: T; smaller gives the nearest more weight.
        labels_per_class: as in `linear_probe`.
        draws: as in `linear_probe`.
        seed: as in `linear_probe`, and the same draws for the same seed.
        features: what the features are, for the record.
        device: where the similarities are computed, in float32.
    """
    if len(train) != len(train_labels) or len(test) != len(test_labels):
        raise ValueError(
            f"{len(train)}/{len(test)} features for {len(train_labels)}/{len(test_labels)} labels"
        )
    if labels_per_class is None:
        chosen = [list(range(len(train)))]
    else:
        truth = train_labels.tolist()
        chosen = [draw(truth, labels_per_class, seed=seed, number=number) for number in range(draws)]
    queries = normalize(test.to(device, torch.float32), dim=1)
    expected = test_labels.to(device)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    accuracies = []
    for rows in chosen:
        memory = normalize(train[rows].to(device, torch.float32), dim=1)
        votes = _vote(memory, train_labels[rows].to(device), queries, min(k, len(rows)), temperature, classes)
        accuracies.append(float((votes == expected).to(torch.float64).mean()))
    return ProbeResult(
        accuracy=sum(accuracies) / len(accuracies),
        std=spread(accuracies),
        draws=len(chosen),
        labels_per_class=labels_per_class,
        features=features,
        train_split="train",
        test_split="test",
        train_samples=len(chosen[0]),
        test_samples=len(test),
    )


def _vote(
    memory: Tensor, labels: Tensor, queries: Tensor, k: int, temperature: float, classes: int
) -> Tensor:
    """The winning class of every query, int64 [M]; the lowest class on a tie."""
    winners = []
    empty, lost = ((each == 0).all(dim=1).to(each.dtype) for each in (memory, queries))
    for rows in batches(len(queries), max(1, 2**25 // len(memory))):
        cosines = queries[rows.start : rows.stop] @ memory.T
        # Exactly 0 unless a feature is zero.
        cosines += 0.5 * (lost[rows.start : rows.stop, None] + empty[None, :])
        similarity, nearest = cosines.topk(k, dim=1)
        # cosine - 1 instead of cosine: the same vote, and no overflow for a small temperature.
        weight = ((similarity - 1.0) / temperature).exp()
        scores = torch.zeros(len(rows), classes, device=memory.device)
        scores.scatter_add_(1, labels[nearest], weight)
        winners.append(scores.argmax(dim=1))
    return torch.cat(winners)
