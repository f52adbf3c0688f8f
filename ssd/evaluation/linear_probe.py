"""Linear evaluation: a multinomial logistic regression on frozen features.

The paper's protocol (linear layer on the un-normalised h, un-augmented images) with a convex solver instead
of Adam: L-BFGS ends at the optimum, so no epoch has to be selected and nothing has to be seeded.

Features are standardised with the mean and deviation of *all* training features, which uses no labels and
makes the regularisation mean the same for encoders of different scale.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.data.images.few_labels import draw

_THREADED_WORK = 50_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """Top-1 accuracy on the test split, and what it was measured on."""

    accuracy: float
    """Mean over the draws, in [0, 1]."""
    std: float
    """Standard deviation over the draws (ddof 1); 0 for a single one."""
    draws: int
    labels_per_class: int | None
    """None: all labels."""
    features: str
    """`h` (encoder) or `z` (projector)."""
    train_split: str
    test_split: str
    train_samples: int
    """Labelled images of one draw."""
    test_samples: int
    converged: bool = True


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    labels_per_class: int | None = None,
    draws: int = 5,
    seed: int = 0,
    inverse_penalty: float = 1.0,
    max_iterations: int = 1000,
    features: str = "h",
) -> ProbeResult:
    """Accuracy of a linear classifier on frozen features.

    Args:
        train: float [N, D] features of the training split.
        train_labels: int64 [N].
        test: float [M, D] features of the test split.
        test_labels: int64 [M].
        labels_per_class: fit on that many labels per class; None fits once on all labels.
        draws: how many times, each with other images.
        seed: which images; the same for every encoder.
        inverse_penalty: scikit-learn's C, the inverse weight of the squared L2 penalty.
        max_iterations: of the solver; reaching it is reported as not converged.
        features: what the features are, for the record.

    Raises:
        ValueError: fewer than two classes, or shapes that do not belong together.
    """
    scaled_train, scaled_test = standardise(train, test)
    truth = train_labels.numpy()
    expected = test_labels.numpy()
    if len(scaled_train) != len(truth) or len(scaled_test) != len(expected):
        raise ValueError(
            f"{len(scaled_train)}/{len(scaled_test)} features for {len(truth)}/{len(expected)} labels"
        )
    if labels_per_class is None:
        chosen = [np.arange(len(truth))]
    else:
        chosen = [
            np.asarray(draw(truth.tolist(), labels_per_class, seed=seed, number=number))
            for number in range(draws)
        ]
    outcomes = [
        _accuracy(scaled_train[rows], truth[rows], scaled_test, expected, inverse_penalty, max_iterations)
        for rows in chosen
    ]
    accuracies = [accuracy for accuracy, _ in outcomes]
    return ProbeResult(
        accuracy=float(np.mean(accuracies)),
        std=spread(accuracies),
        draws=len(chosen),
        labels_per_class=labels_per_class,
        features=features,
        train_split="train",
        test_split="test",
        train_samples=len(chosen[0]),
        test_samples=len(expected),
        converged=all(converged for _, converged in outcomes),
    )


def standardise(train: Tensor, test: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both splits with the training split's mean removed and deviation divided out, in float64.

    A feature that is constant on the training split becomes zero instead of noise.
    """
    first = train.numpy().astype(np.float64)
    second = test.numpy().astype(np.float64)
    mean, deviation = first.mean(axis=0), first.std(axis=0)
    keep = deviation > 1e-6 * max(float(deviation.max(initial=0.0)), 1e-30)
    scale = np.where(keep, 1.0 / np.where(keep, deviation, 1.0), 0.0)
    return (first - mean) * scale, (second - mean) * scale


def spread(values: list[float]) -> float:
    """Standard deviation of the sample (ddof 1), 0 for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _accuracy(
    train: NDArray[np.float64],
    train_labels: NDArray[np.int64],
    test: NDArray[np.float64],
    test_labels: NDArray[np.int64],
    inverse_penalty: float,
    max_iterations: int,
) -> tuple[float, bool]:
    # Imported here: scikit-learn takes more than a second to load, and only evaluation needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    classifier = LogisticRegression(C=inverse_penalty, max_iter=max_iterations, tol=1e-4)
    # On small problems a threaded BLAS spends a hundred times the work on waiting for its threads; on large ones
    # it gets as many as torch, whose number a caller can fix for bit-equal results.
    work = train.shape[0] * train.shape[1] * len(np.unique(train_labels))
    threads = 1 if work < _THREADED_WORK else torch.get_num_threads()
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train, train_labels)
    accuracy = float((classifier.predict(test) == test_labels).mean())
    return accuracy, bool((np.asarray(classifier.n_iter_) < max_iterations).all())
