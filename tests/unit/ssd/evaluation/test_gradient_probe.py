"""Linear probes by gradient descent: the paper's recipe, and the one that selects its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ssd.evaluation import gradient_probe
from ssd.evaluation.gradient_probe import BATCH, EPOCHS, PAPER, Recipe, paper_probe, selected_probe
from ssd.evaluation.linear_probe import linear_probe
from ssd.random_stream import RandomStream

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def blobs(count: int, classes: int = 3, spread: float = 0.4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return torch.eye(classes, 5)[labels] + spread * torch.randn(count, 5, generator=generator), labels


@pytest.fixture(scope="module")
def noisy() -> Data:
    return (*blobs(240, spread=0.6), *blobs(300, spread=0.6, seed=1))


def reference(points: Tensor, labels: Tensor, recipe: Recipe, seed: int) -> nn.Linear:
    """The same training with torch's own layer, loss, gradient and optimiser, batch by batch in the same order."""
    generator = torch.Generator().manual_seed(RandomStream("linear-probe", seed).seed64())
    classes, dimension = int(labels.max()) + 1, points.shape[1]
    first = (2 * torch.rand(dimension + 1, classes, generator=generator) - 1) / math.sqrt(dimension)
    layer = nn.Linear(dimension, classes)
    with torch.no_grad():
        layer.weight.copy_(first[:-1].T)
        layer.bias.copy_(first[-1])
    groups = [{"params": [layer.weight], "weight_decay": recipe.weight_decay}, {"params": [layer.bias]}]
    optimiser = torch.optim.Adam(groups, lr=recipe.lr)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(points), generator=generator).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(layer(points[rows]), labels[rows]).backward()
            optimiser.step()
    return layer


@pytest.mark.parametrize(
    "recipe", [Recipe(epochs=7), Recipe(lr=1e-2, weight_decay=0.1, epochs=7)], ids=["plain", "decayed"]
)
def test_a_layer_is_trained_as_torch_would_train_it(recipe: Recipe) -> None:
    points, labels = blobs(1300)
    expected = reference(points, labels, recipe, 4)
    others = Recipe(lr=0.5, weight_decay=1.0)
    *_, layers = gradient_probe._train(points, labels, [others, recipe], recipe.epochs, 4, "cpu")
    assert torch.allclose(layers[:-1, 1].T, expected.weight, atol=1e-5)
    assert torch.allclose(layers[-1, 1], expected.bias, atol=1e-5)


def test_the_recipe_is_the_papers() -> None:
    assert (PAPER.lr, PAPER.weight_decay, PAPER.epochs, BATCH) == (3e-3, 0.0, 200, 512)


@pytest.mark.parametrize("probe", [paper_probe, selected_probe])
def test_separable_features_are_told_apart_without_an_error(probe) -> None:
    train, labels = blobs(3000, spread=0.03)
    test, expected = blobs(300, spread=0.03, seed=1)
    assert probe(train, labels, test, expected).accuracy == 1.0


@pytest.mark.parametrize("probe", [paper_probe, selected_probe])
def test_equal_seeds_give_equal_bits_whatever_the_global_generator(probe, noisy: Data) -> None:
    first = probe(*noisy, seed=3)
    torch.rand(5)
    threads = torch.get_num_threads()
    assert probe(*noisy, seed=3) == first
    assert torch.get_num_threads() == threads


def test_the_selected_probe_comes_close_to_the_optimum(noisy: Data) -> None:
    assert abs(selected_probe(*noisy).accuracy - linear_probe(*noisy).accuracy) < 0.04


def test_test_labels_choose_nothing(noisy: Data) -> None:
    train, labels, test, expected = noisy
    chosen = selected_probe(*noisy)
    permuted = selected_probe(train, labels, test, (expected + 1) % 3)
    assert permuted.recipe == chosen.recipe
    assert permuted.validation_accuracy == chosen.validation_accuracy
    assert permuted.accuracy < 0.3 < chosen.accuracy


def test_training_labels_choose(noisy: Data) -> None:
    train, labels, test, expected = noisy
    chosen = selected_probe(*noisy)
    assert chosen.recipe.epochs in EPOCHS
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    lost = selected_probe(train, shuffled, test, expected)
    assert chosen.validation_accuracy is not None
    assert lost.validation_accuracy is not None
    assert lost.validation_accuracy < chosen.validation_accuracy
    assert lost.accuracy < chosen.accuracy


def test_a_class_that_is_only_in_the_test_split_is_always_wrong(noisy: Data) -> None:
    train, labels, test, expected = noisy
    known = labels < 2
    result = paper_probe(train[known], labels[known], test, expected)
    assert result.accuracy <= float((expected < 2).float().mean())
    assert result.accuracy > 0.4


@pytest.mark.parametrize("probe", [paper_probe, selected_probe])
def test_what_cannot_be_probed_is_refused(probe, noisy: Data) -> None:
    train, labels, test, expected = noisy
    with pytest.raises(ValueError, match="two classes, got 1"):
        probe(train, torch.zeros_like(labels), test, expected)
    with pytest.raises(ValueError, match="240/300 features for 239/300 labels"):
        probe(train, labels[:-1], test, expected)
    with pytest.raises(ValueError, match="not finite"):
        probe(train.index_fill(0, torch.tensor([7]), math.nan), labels, test, expected)
    with pytest.raises(ValueError, match="no images to test"):
        probe(train, labels, test[:0], expected[:0])


def test_two_labels_cannot_be_split_for_choosing(noisy: Data) -> None:
    train, labels, test, expected = noisy
    with pytest.raises(ValueError, match="too few to hold some out"):
        selected_probe(train[:2], labels[:2], test, expected)


def test_every_epoch_is_told(noisy: Data) -> None:
    told: list[tuple[str, int, int]] = []
    paper_probe(*noisy, recipe=Recipe(epochs=3), track=lambda *each: told.append(each))
    assert told == [("linear probe, paper", epoch, 3) for epoch in (1, 2, 3)]
