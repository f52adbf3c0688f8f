"""What the demo runs, and where it puts it.

The hyper-parameters were chosen for FedAlignUniform alone, on seeds the demo does not use by default, and SSD
takes them as they are: what the closing table says about the two is not the outcome of a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENTS = 10
ALPHA = 0.1
"""Concentration of the Dirichlet split; the paper's."""
LABELS_PER_CLASS = 2
DRAWS = 20
"""Draws of the few labels in the closing table."""
DATASET = "digits"
EVALUATOR = "evaluator"

IMAGE = {"size": 8, "channels": 1}
TRAINING: Mapping[str, Any] = {
    "image": IMAGE,
    "model": {"name": "small", "feature_dim": 64, "width": 32},
    "views": "digits",
    "local_epochs": 5,
    "batch_size": 32,
    "lr": 0.05,
}
"""`[method.config]` of both methods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One of the methods that are compared."""

    method: str
    """Name in `ssd.method.registry`, and of its folder."""
    title: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What its `[method.config]` has besides `TRAINING`."""

    @property
    def config(self) -> dict[str, Any]:
        """The whole `[method.config]`."""
        return {**TRAINING, **self.extra}


CONTENDERS = (
    Contender(method="fed_align_uniform", title="FedAlignUniform"),
    Contender(method="ssd", title="SSD", extra={"preset": "official"}),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSettings:
    """One demo."""

    out: Path = Path("runs/demo")
    rounds: int = 20
    seed: int = 1
    """Of everything: split, initial weights, batches, views, draws of labels."""
    workers: int = 4
    """Processes that train; one more evaluates."""
    secure_aggregation: str = "off"
    """Level: `off`, `passive` or `active`."""
    keep: bool = False
    """Keep the daemons' state directories after success."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"a demo needs at least one round, not {self.rounds}")
        if not 1 <= self.workers <= CLIENTS:
            raise ValueError(f"{CLIENTS} clients can live on 1 to {CLIENTS} workers, not {self.workers}")
        if self.secure_aggregation != "off" and self.workers < 2:
            raise ValueError(
                "secure aggregation needs two workers at least: one alone has nobody to hide among"
            )
        if self.seed < 0:
            raise ValueError(f"a seed is not negative, got {self.seed}")

    @property
    def evaluate_every(self) -> int:
        """Rounds between two evaluations: about five in all."""
        return max(1, self.rounds // 5)

    @property
    def partition(self) -> Path:
        """The file that says which images are whose."""
        return self.out / "partition.json"


def skew(histograms: Mapping[str, Mapping[int, int]], sizes: Mapping[str, int]) -> tuple[int, int, float]:
    """How uneven a split is: smallest client, largest client, and the mean share of a client's commonest class."""
    shares: Sequence[float] = [
        max(histograms[client].values()) / size
        for client, size in sizes.items()
        if size and histograms.get(client)
    ]
    return min(sizes.values()), max(sizes.values()), sum(shares) / len(shares) if shares else 0.0
