"""Measures a classifier on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssd.data.images.source import ImageSource, ProbeData
from ssd.data.preparation import Preparation
from ssd.method.protocol import EvaluationTask
from ssd.models.batch_statistics import calibrate
from ssd.models.classifier import Classifier

BATCH = 512


@dataclass(frozen=True, slots=True)
class Count:
    """Counts of a classifier's answers, which add up over disjoint sets of images."""

    correct: int
    images: int
    loss_sum: float
    """Sum of the images' cross-entropies."""


class _Prepared(nn.Module):
    """A module that prepares its images first."""

    def __init__(self, preparation: Preparation, module: nn.Module) -> None:
        super().__init__()
        self._preparation = preparation
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.module(self._preparation.plain(images))
        return output


def count_correct(
    model: Classifier, source: ImageSource, labels: Tensor, preparation: Preparation, device: torch.device
) -> Count:
    """Classify every image of `source` in evaluation mode."""
    model.backbone.eval()
    model.head.eval()
    correct, loss_sum = 0, 0.0
    with torch.inference_mode():
        for start in range(0, len(source), BATCH):
            indices = range(start, min(start + BATCH, len(source)))
            truth = labels[indices.start : indices.stop].to(device)
            logits = model(preparation.plain(source.batch(indices).to(device)))
            correct += int((logits.argmax(dim=1) == truth).sum())
            loss_sum += float(cross_entropy(logits, truth, reduction="sum"))
    return Count(correct, len(source), loss_sum)


def calibrated(
    backbone: nn.Module, source: ImageSource, preparation: Preparation, device: torch.device
) -> None:
    """Measure the backbone's BatchNorm statistics on `source`; see `ssd.models.batch_statistics`."""
    calibrate(_Prepared(preparation, backbone), source, device)


def represent(
    backbone: nn.Module, data: ProbeData, preparation: Preparation, task: EvaluationTask, device: torch.device
) -> dict[str, float]:
    """What the backbone's features are worth; the task's options are those of `AlignUniform.evaluate`."""
    # Evaluation brings scikit-learn, which a training process never needs.
    from ssd.evaluation.evaluate import EvaluationOptions, evaluate_encoder
    from ssd.evaluation.features import module_encoder

    options = EvaluationOptions(
        device=device,
        labels_per_class=(int(task.options.get("labels_per_class", 2)),),
        draws=int(task.options.get("draws", 5)),
        knn_k=int(task.options.get("knn_k", 20)),
        quality_samples=int(task.options.get("quality_samples", 2000)),
        seed=task.run_seed,
    )
    encode = module_encoder(_Prepared(preparation, backbone), device)
    return evaluate_encoder(encode, data, data.clients, options)
