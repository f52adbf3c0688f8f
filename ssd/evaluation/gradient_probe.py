"""Linear evaluation by gradient descent on frozen features: the paper's recipe, and one that selects its own.

* `paper_probe` is SSD's (arXiv 2508.01251, its code): one linear layer on the un-normalised features, Adam with
  learning rate 3e-3, batches of 512, 200 epochs. The paper does not say which epoch its tables report; we report
  the last, so the test labels choose nothing.
* `selected_probe` chooses learning rate, weight decay and epochs on a stratified tenth of the *training* labels,
  trains again on all of them, and looks at the test split once.

Layers that see the same batches are trained as one matrix, so a whole grid costs little more than one layer. All
runs on one thread with generators of its own: equal features and seeds give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ssd.data.images.stratified import stratified_split
from ssd.evaluation.features import batches
from ssd.evaluation.linear_probe import standardise
from ssd.evaluation.measures import Track, untracked
from ssd.random_stream import RandomStream
from ssd.torch_support.determinism import deterministic

BATCH = 512
VALIDATION_SHARE = 0.1
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8  # Adam's own defaults (Kingma & Ba, 2015)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one linear layer is trained with Adam."""

    lr: float = 3e-3
    weight_decay: float = 0.0
    """Factor of the L2 term in the gradient of the weights; the bias has none."""
    epochs: int = 200


PAPER = Recipe()
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3)
EPOCHS = (10, 30, 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientProbeResult:
    """Top-1 accuracy on the test split and how the layer came about."""

    accuracy: float
    recipe: Recipe
    validation_accuracy: float | None
    """On the held-out training labels, before training again; None where nothing was selected."""
    train_samples: int
    test_samples: int


def paper_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    recipe: Recipe = PAPER,
    seed: int = 0,
    device: torch.device | str = "cpu",
    track: Track = untracked,
) -> GradientProbeResult:
    """Accuracy after the last epoch of the paper's recipe.

    Args:
        train: float [N, D] features of the training split, as they are.
        train_labels: int64 [N].
        test: float [M, D] features of the test split.
        test_labels: int64 [M]; looked at once, after training.
        recipe: another than the paper's.
        seed: of the first weights and the order of the images.
        device: where the layer is trained.
        track: hears of every epoch.

    Raises:
        ValueError: fewer than two classes, features that are not finite, or shapes that do not belong together.
    """
    _check(train, train_labels, test, test_labels)
    with deterministic(torch.device(device), 1):
        layer = _last(train, train_labels, recipe, seed, device, "linear probe, paper", track)
        return GradientProbeResult(
            accuracy=float(_accuracies(layer, test, test_labels)[0]),
            recipe=recipe,
            validation_accuracy=None,
            train_samples=len(train),
            test_samples=len(test),
        )


def selected_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    track: Track = untracked,
) -> GradientProbeResult:
    """Accuracy of a layer whose recipe was chosen without the test split.

    Features are standardised with the training split's mean and deviation, which uses no labels. Of all learning
    rates, weight decays and numbers of epochs the best on the validation images is taken; on a tie the one with the
    fewest epochs, then the first of the grid. The arguments and errors are those of `paper_probe`.
    """
    _check(train, train_labels, test, test_labels)
    labels = train_labels.numpy()
    held_out = max(1, round(VALIDATION_SHARE * len(labels)))
    fitted, validated = stratified_split(labels, held_out, "probe-validation", seed)
    if len(np.unique(labels[fitted])) < 2:
        raise ValueError(f"{len(labels)} labels are too few to hold some out for choosing a linear probe")
    scaled, scaled_test = (torch.from_numpy(part).to(torch.float32) for part in standardise(train, test))
    grid = [Recipe(lr=lr, weight_decay=decay) for lr, decay in product(LEARNING_RATES, WEIGHT_DECAYS)]
    with deterministic(torch.device(device), 1):
        best, recipe = -1.0, PAPER
        steps = _train(scaled[fitted], train_labels[fitted], grid, max(EPOCHS), seed, device)
        for epoch, layers in enumerate(steps, start=1):
            track("linear probe, choosing", epoch, max(EPOCHS))
            if epoch not in EPOCHS:
                continue
            accuracies = _accuracies(layers, scaled[validated], train_labels[validated]).tolist()
            for candidate, accuracy in zip(grid, accuracies, strict=True):
                if accuracy > best:
                    best = accuracy
                    recipe = Recipe(lr=candidate.lr, weight_decay=candidate.weight_decay, epochs=epoch)
        layer = _last(scaled, train_labels, recipe, seed, device, "linear probe, chosen", track)
        return GradientProbeResult(
            accuracy=float(_accuracies(layer, scaled_test, test_labels)[0]),
            recipe=recipe,
            validation_accuracy=best,
            train_samples=len(train),
            test_samples=len(test),
        )


def _check(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    if len(train) != len(train_labels) or len(test) != len(test_labels):
        raise ValueError(
            f"{len(train)}/{len(test)} features for {len(train_labels)}/{len(test_labels)} labels"
        )
    if len(test) == 0:
        raise ValueError("there are no images to test a linear probe on")
    classes = len(np.unique(train_labels.numpy()))
    if classes < 2:
        raise ValueError(f"a linear probe needs two classes, got {classes}")
    for features in (train, test):
        if not bool(torch.isfinite(features).all()):
            raise ValueError("the features are not finite; the encoder has diverged")


def _last(
    points: Tensor,
    labels: Tensor,
    recipe: Recipe,
    seed: int,
    device: torch.device | str,
    what: str,
    track: Track,
) -> Tensor:
    """The layer after all epochs of one recipe, [D + 1, 1, C]."""
    trained = torch.empty(0)
    for epoch, layer in enumerate(_train(points, labels, [recipe], recipe.epochs, seed, device), start=1):
        trained = layer
        track(what, epoch, recipe.epochs)
    return trained


def _train(
    points: Tensor,
    labels: Tensor,
    recipes: Sequence[Recipe],
    epochs: int,
    seed: int,
    device: torch.device | str,
) -> Iterator[Tensor]:
    """Train one layer per recipe on the same batches; after every epoch all of them, [D + 1, H, C].

    The last row is the bias. The tensor is the one that is trained: use it before asking for the next epoch.
    """
    count, dimension = points.shape
    heads, classes = len(recipes), int(labels.max()) + 1
    generator = torch.Generator().manual_seed(RandomStream("linear-probe", seed).seed64())
    bound = 1.0 / math.sqrt(dimension)  # as torch's own linear layer starts
    first = (2.0 * torch.rand(dimension + 1, 1, classes, generator=generator) - 1.0) * bound
    layers = first.expand(-1, heads, -1).reshape(dimension + 1, heads * classes).to(device)
    mean, variance = torch.zeros_like(layers), torch.zeros_like(layers)
    rate, decay = (
        torch.tensor(values, device=device).repeat_interleave(classes)
        for values in ([r.lr for r in recipes], [r.weight_decay for r in recipes])
    )
    decaying = bool(decay.any())
    inputs = torch.cat([points.to(device, torch.float32), torch.ones(count, 1, device=device)], dim=1)
    targets = labels.to(device)
    identity = torch.eye(classes, device=device)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).to(device)
        for rows in batches(count, BATCH):
            chosen = order[rows.start : rows.stop]
            batch = inputs[chosen]
            error = (batch @ layers).view(len(chosen), heads, classes).softmax(dim=2)
            error.sub_(identity[targets[chosen]][:, None, :]).div_(len(chosen))
            gradient = batch.T @ error.view(len(chosen), heads * classes)
            if decaying:
                gradient[:-1].addcmul_(layers[:-1], decay)
            step += 1
            mean.lerp_(gradient, 1.0 - _FIRST)
            variance.mul_(_SECOND).addcmul_(gradient, gradient, value=1.0 - _SECOND)
            scale = (variance.sqrt() / math.sqrt(1.0 - _SECOND**step)).add_(_EPSILON)
            layers.sub_((mean / scale).mul_(rate / (1.0 - _FIRST**step)))
        yield layers.view(dimension + 1, heads, classes)


def _accuracies(layers: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """float64 [H]: each layer's share of right answers; a class it has never seen is always wrong."""
    weights, bias = layers[:-1], layers[-1]
    right = torch.zeros(layers.shape[1], dtype=torch.float64, device=layers.device)
    for rows in batches(len(points), 8192):
        part = points[rows.start : rows.stop].to(layers.device, torch.float32)
        answers = (part @ weights.flatten(1)).view(len(part), *bias.shape).add_(bias).argmax(dim=2)
        right += (answers == labels[rows.start : rows.stop].to(layers.device)[:, None]).sum(dim=0)
    return (right / len(points)).cpu()
