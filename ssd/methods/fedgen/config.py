"""Configuration of FedGen (arXiv 2105.10056), and where the paper and its official code part.

`preset` picks one of the two for everything that is FedGen's own; keys given beside it win. How clients train
otherwise (optimiser, steps, BatchNorm, weighting) is the supervised family's and the same as its baselines'. Which
`teacher` the generator learns from is never part of a preset: `individual_heads` shows every client's head and label
counts to the server, and that is for the operator to say.

| | `paper` | `official` |
| --- | --- | --- |
| noise | Gaussian | uniform on [0, 1) |
| labels of generated vectors | as counted in the round | uniform over the labels anybody holds |
| label counts | plain | one added for every client and label |
| loss on generated vectors | weight 1 | 10 · 0.98^t, not below 1e-4, in the first 20 local steps |
| guidance of the backbone (KL) | none | the same schedule |
| individual heads | each label with its own share | by their mean share of a batch (see `ssd.losses.ensemble`) |

The paper gives no learning rate, weight decay or diversity weight for the generator; both presets have the code's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ssd.methods.fedgen.server import GeneratorTraining
from ssd.methods.supervised.config import SupervisedConfig, resolve
from ssd.models.generator import GeneratorConfig
from ssd.settings import merge

Json = Any

FADING: Json = {"kind": "exponential", "start": 10.0, "rate": 0.98, "floor": 1e-4}
PRESETS: Mapping[str, Mapping[str, Json]] = {
    "official": {},
    "paper": {
        "generator": {"noise": "gaussian"},
        "labels": "counts",
        "count_smoothing": 0,
        "alpha": 1.0,
        "beta": 0.0,
        "generated_steps": None,
        "matched_shares": True,
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FedGenConfig(SupervisedConfig):
    """Settings of FedGen; the defaults are the official code's for MNIST."""

    preset: Literal["official", "paper"] = "official"
    share: Literal["model", "head"] = "model"
    """`head`: only the head travels (the paper's partial sharing); every client keeps a backbone of its own."""
    teacher: Literal["averaged_head", "label_weighted_heads", "individual_heads"] = "averaged_head"
    """What the generator is trained against; see `ssd.losses.ensemble`. The first two need sums only."""
    matched_shares: bool = False
    """Of `individual_heads`: weigh each vector's loss with its own label's share."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    server: GeneratorTraining = field(default_factory=GeneratorTraining)
    generator_lr: Any = field(default_factory=lambda: {"kind": "exponential", "start": 3e-4, "rate": 0.98})
    """Adam's learning rate on the server: a number or a schedule. The official code starts at 1e-4 for EMNIST."""
    alpha: Any = field(default_factory=lambda: dict(FADING))
    """Weight of the loss on generated vectors, times `generated_batch` / `batch_size`: a number or a schedule."""
    beta: Any = field(default_factory=lambda: dict(FADING))
    """Weight of the guidance term: a number or a schedule. The official code starts at 1 for EMNIST."""
    generated_batch: int | None = None
    """Generated vectors a step; None: as many as `batch_size`."""
    generated_steps: int | None = 20
    """Only so many local steps of a visit use generated vectors; None: all."""
    labels: Literal["uniform", "counts"] = "uniform"
    """What labels generated vectors have: `uniform` over those that some client holds, or as often as counted."""
    count: Literal["drawn", "images"] = "drawn"
    """What a client counts: the labels of the mini-batches it trained on, or of all its images."""
    count_smoothing: int = 1
    """Added to every client's count of every label before heads are weighted by them."""
    max_label_count: int = 1_000_000
    """The most one client may count of a label; fixes the scale of the exact sums."""

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        if self.head != "shared":
            raise ValueError('FedGen needs the heads of its clients: leave head = "shared"')
        if self.generated_batch is not None and self.generated_batch < 1:
            raise ValueError(f"generated_batch must be at least 1, got {self.generated_batch}")
        if self.generated_steps is not None and self.generated_steps < 0:
            raise ValueError(f"generated_steps must not be negative, got {self.generated_steps}")
        if self.count_smoothing < 0:
            raise ValueError(f"count_smoothing must not be negative, got {self.count_smoothing}")
        if self.max_label_count < 1:
            raise ValueError(f"max_label_count must be at least 1, got {self.max_label_count}")

    @property
    def head_size(self) -> int:
        """The number of values of one head, weights and biases."""
        return self.classes * (self.feature_dim + 1)

    def schedules(self) -> dict[str, Json]:
        """See `SupervisedConfig.schedules`."""
        return {
            # (Without arguments, `super` does not find the class that a slotted dataclass replaced.)
            **SupervisedConfig.schedules(self),
            "generator_lr": self.generator_lr,
            "alpha": self.alpha,
            "beta": self.beta,
        }


def resolve_fedgen(config: Mapping[str, Json]) -> FedGenConfig:
    """A configuration with its preset and every default filled in; resolving the result again gives the same.

    Raises:
        SettingsError: every unknown key, wrong type, bad value and contradiction.

    """
    preset = config.get("preset", "official")
    base = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    # A schedule replaces another one whole: merged key by key, two kinds would mix.
    schedules = {name: config[name] for name in ("lr", "generator_lr", "alpha", "beta") if name in config}
    return resolve(FedGenConfig, {**merge(base, config), **schedules})
