"""Configuration of the supervised family.

A configuration is a JSON object; `resolve` fills in what is left out and refuses what cannot be. A method with settings
of its own derives a dataclass from `SupervisedConfig` and adds fields (number, text, boolean, `Literal`, tuple of
numbers, optional, or another such dataclass) with defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from ssd.data.images.source import ImageFormat
from ssd.method.schedule import resolve as resolve_schedules
from ssd.methods.self_supervised.config import Bounds
from ssd.methods.supervised.training import SupervisedOptions
from ssd.models.flat import BufferPolicy
from ssd.models.registry import ModelConfig
from ssd.settings import SettingsError, read

Json = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisedConfig(SupervisedOptions):
    """Settings every supervised method has; the training options are keys of the same object."""

    image: ImageFormat = field(default_factory=lambda: ImageFormat(size=32, channels=3))
    classes: int = 10
    """Of the whole federation, whether or not every client holds them all."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The backbone; the head is one affine map from its features to the classes."""
    head: Literal["shared", "private"] = "shared"
    """`private`: the head never leaves the client, as in FedPer (arXiv 1912.00818); only the backbone is averaged."""
    lr: Any = 0.1
    """Learning rate: a number, or a schedule over the rounds as `ssd.method.schedule` reads it."""
    lr_lag: bool = False
    """A client trains at the rate of the round in which it last took part, at its first visit at the schedule's first:
    as in FedGen's official code, where clients move their own schedule on after they have trained."""
    weighting: Literal["images", "batches", "uniform"] = "images"
    """What a client's aggregation weight counts: its images (FedAvg), its mini-batches of a pass, or nothing."""
    buffers: BufferPolicy = "averaged"
    representation: bool = False
    """Evaluate what the features are worth (linear probe, kNN, geometry) beside the accuracy."""
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        SupervisedOptions.__post_init__(self)
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, got {self.classes}")
        self.normalise.check(self.image.channels)

    @property
    def feature_dim(self) -> int:
        """Length of the features."""
        size = self.model.resolved().feature_dim
        assert size is not None
        return size

    def schedules(self) -> dict[str, Json]:
        """What the coordinator resolves for every round; a task's `values` carry the numbers."""
        return {"lr": self.lr}


Config = TypeVar("Config", bound=SupervisedConfig)


def resolve(cls: type[Config], config: Mapping[str, Json]) -> Config:
    """A configuration with every default filled in; resolving the result again gives the same.

    Raises:
        SettingsError: every unknown key, wrong type, bad value and contradiction.

    """
    settings = read(cls, config)
    mistakes: list[str] = []
    try:
        settings = replace(settings, model=settings.model.resolved())
    except ValueError as error:
        mistakes.append(f"config.model: {error}")
    for name, schedule in settings.schedules().items():
        try:
            resolve_schedules({name: schedule}, 1, 2)
        except (ValueError, TypeError) as error:
            mistakes.append(f"config: {error}")
    if mistakes:
        raise SettingsError(mistakes)
    return settings
