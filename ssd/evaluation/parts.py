"""Measures exported files: an encoder, with its projector and its classifier if they were exported too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ssd.data.images.source import ProbeData
from ssd.evaluation.evaluate import EvaluationOptions, both_splits, check, evaluate_features, labels_of
from ssd.evaluation.features import batches, module_encoder
from ssd.evaluation.fine_tuning import FineTuning, fine_tune
from ssd.evaluation.measures import FINE_TUNING


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Modules in evaluation mode on one device."""

    encoder: nn.Module
    feature_dim: int
    """Length of h."""
    projector: nn.Module | None = None
    head: nn.Linear | None = None


def evaluate_parts(
    parts: Parts,
    probe: ProbeData,
    kinds: Sequence[str],
    options: EvaluationOptions,
    recipe: FineTuning,
    threads: int,
) -> dict[str, float]:
    """The measures of `ssd.evaluation.evaluate` of every kind of features, and those that only a file allows.

    Those of z have names that begin with `z_`. Besides: `head_accuracy` of the classifier on the test split,
    `fine_tune_1` and `fine_tune_10` with `..._labels` and `fine_tune_epochs`, and under `recipe.looks` also
    `..._best_of_4_test_looks`.

    Args:
        parts: what is measured; z needs the projector.
        probe: labelled images.
        kinds: of `h` and `z`.
        options: `features` is set here.
        recipe: of fine-tuning.
        threads: of fine-tuning.

    Raises:
        ValueError: the probe or its clients cannot be used, or a part does not fit them.
    """
    check(probe, probe.clients)
    frozen = [name for name in options.measures if name not in FINE_TUNING]
    values: dict[str, float] = {}
    if frozen or parts.head is not None:
        encode = module_encoder(parts.encoder, options.device)
        train, test = both_splits(encode, probe, options)
        if parts.head is not None:
            values |= _classify(parts.head, test, probe)
        for kind in kinds if frozen else ():
            if kind == "h":
                measured = evaluate_features(train, test, encode, probe, probe.clients, options)
            else:
                assert parts.projector is not None
                z_train, z_test = (_project(parts.projector, part, options) for part in (train, test))
                through = module_encoder(nn.Sequential(parts.encoder, parts.projector), options.device)
                of_z = replace(options, features="z")
                measured = evaluate_features(z_train, z_test, through, probe, probe.clients, of_z)
            values |= measured if kind == "h" else {f"z_{name}": value for name, value in measured.items()}
    for name in options.measures:
        if name in FINE_TUNING:
            values |= _fine_tuned(parts, probe, name, options, recipe, threads)
    return values


def _project(projector: nn.Module, points: Tensor, options: EvaluationOptions) -> Tensor:
    """The projector's output of features, float32 [N, out_dim] on the CPU."""
    encode = module_encoder(projector, options.device)
    pieces = [encode(points[rows.start : rows.stop]) for rows in batches(len(points), options.batch)]
    # Out of inference mode, like every other tensor of features.
    return torch.cat(pieces).to("cpu", torch.float32).clone()


def _classify(head: nn.Linear, test: Tensor, probe: ProbeData) -> dict[str, float]:
    train_labels, test_labels = labels_of(probe)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    if classes != head.out_features:
        raise ValueError(f"the head tells {head.out_features} classes apart, {probe.name!r} has {classes}")
    with torch.inference_mode():
        answers = head(test.to(head.weight.device)).argmax(dim=1).cpu()
    right = float((answers == test_labels).to(torch.float64).mean())
    return {"head_accuracy": right, "head_samples": float(len(test))}


def _fine_tuned(
    parts: Parts,
    probe: ProbeData,
    name: str,
    options: EvaluationOptions,
    recipe: FineTuning,
    threads: int,
) -> dict[str, float]:
    result = fine_tune(
        parts.encoder, probe, FINE_TUNING[name], feature_dim=parts.feature_dim, recipe=recipe,
        seed=options.seed, device=options.device, threads=threads, track=options.track,
    )  # fmt: skip
    values = {
        name: result.accuracy,
        f"{name}_labels": float(result.labelled_samples),
        "fine_tune_epochs": float(result.epochs),
        "train_samples": float(len(probe.train)),
        "test_samples": float(result.test_samples),
    }
    if result.best_of_looks is not None:
        values[f"{name}_best_of_4_test_looks"] = result.best_of_looks
    return values
