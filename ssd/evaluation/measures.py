"""What `ssd evaluate` can measure, by name; no torch here, so that a help text costs nothing."""

from __future__ import annotations

from collections.abc import Callable

Track = Callable[[str, int, int], None]
"""Called as track(what, done, total) while something that takes a while goes on; cheap, may be called often."""

MEASURES = {
    "linear_probe": "logistic regression on all labels, to the optimum",
    "linear_probe_paper": "the paper's: Adam 3e-3, batch 512, 200 epochs, last epoch",
    "linear_probe_selected": "Adam, settings chosen on held-out training labels",
    "knn": "weighted nearest neighbours, k of --neighbours",
    "knn_paper": "the same with k = 200, as the paper's code monitors",
    "few_labels": "logistic regression and kNN on a few labels per class",
    "fine_tune_1": "fine-tuning of encoder and linear layer on 1 % of the labels",
    "fine_tune_10": "the same on 10 %",
    "quality": "uniformity, effective rank and, with views, alignment",
    "centred": "uniformity and effective rank around the mean, and how much of a feature all images share",
}
"""Every measure and its one line of help."""
DEFAULT_MEASURES = ("linear_probe", "knn", "few_labels", "quality")
FINE_TUNING = {"fine_tune_1": 0.01, "fine_tune_10": 0.1}
"""The measures that train the encoder, and their share of the labels."""
CHANCE, PIXELS, UNTRAINED = BESIDE = ("chance", "raw-pixels", "untrained")
"""What needs no training and stands beside an encoder's figures (`ssd.evaluation.beside`)."""


def untracked(what: str, done: int, total: int) -> None:
    """A `Track` that reports no progress."""
