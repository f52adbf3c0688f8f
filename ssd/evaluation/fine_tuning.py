"""Fine-tuning on a small share of the labels. It measures an encoder for people who will train it further.

The recipe is SSD's (arXiv 2508.01251, its code): a stratified 1 % or 10 % of the training labels, encoder and a new
linear layer trained together with SGD (momentum 0.9, encoder 1e-3, layer 0.3), batches of 128, 200 epochs, crops of
64 to 100 % of the area and flips. BatchNorm is in training mode. The official code tests four times and prints the
best, which chooses on the test split; here the last epoch counts, and that figure exists only beside it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssd.data.images.few_labels import draw_share
from ssd.data.images.source import ImageSource, ProbeData
from ssd.data.views.views import ViewOptions, Views
from ssd.evaluation.features import batches, features, module_encoder
from ssd.evaluation.measures import Track, untracked
from ssd.models.allocate import allocated
from ssd.random_stream import RandomStream
from ssd.torch_support.determinism import deterministic

VIEWS = ViewOptions(preset="none", scale=(0.64, 1.0), flip=0.5, jitter=0.0, grey=0.0)
LOOKS = 4
"""How often the official code tests while it trains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuning:
    """How to fine-tune; the defaults are the official code's."""

    epochs: int = 200
    batch: int = 128
    encoder_lr: float = 1e-3
    head_lr: float = 0.3
    momentum: float = 0.9
    looks: bool = False
    """Also test at every quarter of the epochs, for the official code's figure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneResult:
    """Top-1 accuracy on the test split."""

    accuracy: float
    """After the last epoch."""
    best_of_looks: float | None
    """The best of four test looks, as the official code prints; optimistic. None unless asked for."""
    labelled_samples: int
    test_samples: int
    epochs: int


def fine_tune(
    encoder: nn.Module,
    probe: ProbeData,
    share: float,
    *,
    feature_dim: int,
    recipe: FineTuning | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    threads: int = 1,
    track: Track = untracked,
) -> FineTuneResult:
    """Train a copy of `encoder` with a new linear layer on a share of the training labels, then test it.

    Args:
        encoder: [B, C, S, S] float32 in [0, 1] to [B, D]; left as it is.
        probe: labelled images.
        share: of the training labels, between 0 and 1.
        feature_dim: D.
        recipe: None: the paper's.
        seed: which labels, the layer's first weights, the order of the images and their views.
        device: where to train.
        threads: of the CPU; another number gives other bits.
        track: hears of every epoch.

    Raises:
        ValueError: no labels, one class, fewer labels than classes, or the training diverged.
    """
    recipe = recipe or FineTuning()
    if probe.train.labels is None or probe.test.labels is None:
        raise ValueError(f"the probe data {probe.name!r} has no labels")
    labels = probe.train.labels
    if len(set(labels.tolist())) < 2:
        raise ValueError("fine-tuning needs two classes, the training images show one")
    rows = draw_share(labels.tolist(), share, seed=seed)
    where = torch.device(device)
    generator = torch.Generator().manual_seed(RandomStream("fine-tuning", seed).seed64())
    with deterministic(where, threads):
        body = copy.deepcopy(encoder).to(where)
        head = _new_layer(feature_dim, int(labels.max()) + 1, generator).to(where)
        model = nn.Sequential(body, head)
        training = _Training(model, recipe, Views(VIEWS), generator, where)
        looked: list[float] = []
        for epoch in range(1, recipe.epochs + 1):
            training.epoch(probe.train, rows, labels)
            track(f"fine-tuning on {share:.0%} of the labels", epoch, recipe.epochs)
            if recipe.looks and epoch in _looks(recipe.epochs):
                looked.append(_accuracy(model, probe.test, where))
        accuracy = looked[-1] if looked else _accuracy(model, probe.test, where)
    return FineTuneResult(
        accuracy=accuracy,
        best_of_looks=max(looked) if looked else None,
        labelled_samples=len(rows),
        test_samples=len(probe.test),
        epochs=recipe.epochs,
    )


class _Training:
    """One model and its optimiser."""

    def __init__(
        self,
        model: nn.Sequential,
        recipe: FineTuning,
        views: Views,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._model, self._recipe, self._views = model, recipe, views
        self._generator, self._device = generator, device
        body, head = model
        self._optimiser = torch.optim.SGD(
            [
                {"params": list(body.parameters()), "lr": recipe.encoder_lr},
                {"params": list(head.parameters()), "lr": recipe.head_lr},
            ],
            lr=recipe.head_lr,
            momentum=recipe.momentum,
        )

    def epoch(self, source: ImageSource, rows: list[int], labels: Tensor) -> None:
        """See every labelled image once, in a new order and a new view."""
        self._model.train()
        order = torch.randperm(len(rows), generator=self._generator).tolist()
        for piece in batches(len(rows), self._recipe.batch):
            chosen = [rows[order[position]] for position in piece]
            if len(chosen) == 1 and len(rows) > 1:
                continue  # BatchNorm learns nothing from a single image
            images = self._views.one(source.batch(chosen).to(self._device), self._generator)
            self._optimiser.zero_grad(set_to_none=True)
            loss = cross_entropy(self._model(images), labels[chosen].to(self._device))
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            self._optimiser.step()


def _looks(epochs: int) -> set[int]:
    return {math.ceil(epochs * quarter / LOOKS) for quarter in range(1, LOOKS + 1)}


def _new_layer(feature_dim: int, classes: int, generator: torch.Generator) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(feature_dim, classes)
    allocated(layer)
    bound = 1.0 / math.sqrt(feature_dim)  # as torch's own starts
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def _accuracy(model: nn.Module, test: ImageSource, device: torch.device) -> float:
    answers = features(module_encoder(model, device), test, device=device).argmax(dim=1)
    assert test.labels is not None
    return float((answers == test.labels).to(torch.float64).mean())
