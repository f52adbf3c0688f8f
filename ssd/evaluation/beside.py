"""What stands beside an encoder's figures and needs no training: chance, raw pixels, an encoder with fresh weights.

A figure says something only against these. Each is measured as the encoder is: on the same images, with the same labels
and recipes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ssd.data.images.source import ProbeData
from ssd.evaluation.evaluate import EvaluationOptions, evaluate_encoder, labels_of
from ssd.evaluation.fine_tuning import FineTuning
from ssd.evaluation.measures import CHANCE, FINE_TUNING, PIXELS, UNTRAINED
from ssd.evaluation.parts import Parts, evaluate_parts
from ssd.models.initialise import initialise

ACCURACIES = ("linear_probe", "linear_probe_paper", "linear_probe_selected", "knn", "knn_paper", "few_labels")
"""Measures of frozen features that raw pixels have, too."""
WIDE = 0.05
"""A 95 % interval of an accuracy that reaches further than this to one side says too little to compare encoders."""


def raw_pixels(images: Tensor) -> Tensor:
    """No encoder at all, uint8 [B, C, H, W] -> float32 [B, C H W] in [0, 1]: what every encoder has to beat."""
    return images.flatten(1).to(torch.float32) / 255.0


def untrained(parts: Parts, seed: int) -> Parts:
    """The same modules with fresh initial weights; `parts` keeps its own."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(module: nn.Module) -> nn.Module:
        made = copy.deepcopy(module).cpu()
        for layer in made.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.running_mean is None:
                layer.track_running_stats = (
                    False  # it has no statistics to reset: they never left the clients
                )
        initialise(made, generator)
        where = next((each.device for each in module.parameters()), torch.device("cpu"))
        return made.to(where).eval()

    return Parts(
        encoder=fresh(parts.encoder),
        feature_dim=parts.feature_dim,
        projector=None if parts.projector is None else fresh(parts.projector),
    )


def beside(
    name: str,
    parts: Parts,
    probe: ProbeData,
    kinds: Sequence[str],
    options: EvaluationOptions,
    threads: int,
) -> dict[str, float]:
    """The measures of `chance`, `raw-pixels` or `untrained`, by the keys that the encoder's have.

    Chance has every accuracy, raw pixels those of frozen features of h. Fine-tuning trains the encoder, so an untrained
    one would cost as much as the encoder itself: it is left out.

    Args:
        name: one of `ssd.evaluation.measures.BESIDE`.
        parts: the encoder that is compared with, for its sizes; weights are drawn from `options.seed`.
        probe: labelled images.
        kinds: of `h` and `z`.
        options: as for the encoder.
        threads: as for the encoder.

    Raises:
        ValueError: the probe cannot be used.
    """
    if name == CHANCE:
        return chance(probe, options, head=parts.head is not None)
    frozen = tuple(each for each in options.measures if each not in FINE_TUNING)
    if name == UNTRAINED:
        asked = replace(options, measures=frozen)
        return evaluate_parts(untrained(parts, options.seed), probe, kinds, asked, FineTuning(), threads)
    assert name == PIXELS
    accuracies = tuple(each for each in frozen if each in ACCURACIES)
    if not accuracies or "h" not in kinds:
        return {}
    return evaluate_encoder(raw_pixels, probe, None, replace(options, measures=accuracies))


def chance(probe: ProbeData, options: EvaluationOptions, *, head: bool = False) -> dict[str, float]:
    """Accuracies of whoever knows no image: always the commonest class of the training labels; one of the classes by
    lot where every class has equally many labels.
    """
    train, test = labels_of(probe)
    counts = torch.bincount(train)
    commonest = float((test == int(counts.argmax())).to(torch.float64).mean())
    lot = 1.0 / int((counts > 0).sum())
    found: dict[str, float] = {"train_samples": float(len(train)), "test_samples": float(len(test))}
    plain = {"linear_probe": "linear_probe_all", "knn": "knn_all"}
    for name in options.measures:
        if name == "few_labels":
            for count in options.labels_per_class:
                found |= {f"linear_probe_{count}_per_class": lot, f"knn_{count}_per_class": lot}
        elif name in ACCURACIES or name in FINE_TUNING:
            found[plain.get(name, name)] = commonest
    if head:
        found["head_accuracy"] = commonest
    return found


def small_probe(values: Mapping[str, float]) -> str | None:
    """A sentence if a probe has too few test images for its accuracies to mean anything; None if it has enough.

    The interval is Agresti and Coull's: with two right and two wrong answers added, so that no accuracy is certain.
    """
    count = values["test_samples"]
    widest = max(
        (
            1.96 * math.sqrt((right := (count * value + 2.0) / (count + 4.0)) * (1.0 - right) / (count + 4.0))
            for name, value in values.items()
            if _is_accuracy(name)
        ),
        default=0.0,
    )
    if widest <= WIDE:
        return None
    needed = math.ceil(count * (widest / WIDE) ** 2 / 10) * 10
    return (
        f"The probe has only {count:.0f} test images: accuracies are uncertain by ± {100 * widest:.0f} points (95 %), and "
        f"smaller differences mean nothing. About {needed} images would do for ± {100 * WIDE:.0f}."
    )


def worse_than(values: Mapping[str, float], others: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence for each of `others` that the encoder does not beat in every accuracy that both have."""
    found = []
    for name, other in others.items():
        keys = [key for key in values if _is_accuracy(key) and key in other]
        lost = [key for key in keys if values[key] <= other[key]]
        if lost:
            found.append(f"Not better than {name.replace('-', ' ')}: {', '.join(lost)}.")
    return found


def _is_accuracy(name: str) -> bool:
    return (
        not name.endswith(("_std", "_lr", "_weight_decay", "_epochs", "_validation", "_labels", "_samples"))
        and any(word in name for word in ("linear_probe", "knn_", "fine_tune", "head_accuracy"))
        and name != "knn_k"
        and not name.startswith("labelled_")
    )
