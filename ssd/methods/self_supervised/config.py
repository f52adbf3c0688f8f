"""Configuration of the align-and-uniform family: SSD and its base method FedAlignUniform.

A configuration is a JSON object. `preset` picks the loss forms and the basis, `views` may be the name of a set of
view options; everything given beside them overrides them key by key. Resolving twice gives the same result, so
the resolved object (in the declaration) is what every worker builds its method from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from ssd.data.images.source import ImageFormat
from ssd.data.views.views import PRESETS as VIEW_PRESETS
from ssd.data.views.views import ViewOptions
from ssd.evaluation.federated_quality import QualityOptions
from ssd.losses.joint_embedding.barlow_twins import BarlowTwinsOptions, barlow_twins
from ssd.losses.joint_embedding.nt_xent import NtXentOptions, nt_xent
from ssd.losses.joint_embedding.vicreg import VicRegOptions, vicreg
from ssd.losses.objective import PairLoss
from ssd.losses.presets import PRESETS as LOSS_PRESETS
from ssd.losses.presets import AlignUniformLosses, SsdLosses
from ssd.method.schedule import resolve as resolve_schedules
from ssd.methods.self_supervised.training import TrainingOptions
from ssd.models.flat import BufferPolicy
from ssd.models.initialise import Initialisation
from ssd.models.projector import ProjectorConfig
from ssd.models.registry import ModelConfig
from ssd.settings import SettingsError, merge, read, to_json
from ssd.updates.declaration import QualityDeclaration

Json = Any
Objective: TypeAlias = Literal["align_uniform", "simclr", "vicreg", "barlow_twins"]

BASES = {"official": "rotated", "code": "rotated", "paper": "axis", "paper_literal": "axis"}
NO_PROJECTOR = "set projector to null only with losses.delta = 0: without a projector z is h and there is nothing to distil"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The largest update one client may send; anything beyond is refused by both daemons."""

    parameter_max_abs: float = 16.0
    parameter_norm: float = 1e3
    buffer_max_abs: float = 1e4
    buffer_norm: float = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignUniformConfig(TrainingOptions):
    """Settings of FedAlignUniform; the training options are keys of the same object."""

    image: ImageFormat = field(default_factory=lambda: ImageFormat(size=32, channels=3))
    model: ModelConfig = field(default_factory=ModelConfig)
    projector: ProjectorConfig | None = field(default_factory=ProjectorConfig)
    views: ViewOptions = field(default_factory=ViewOptions)
    losses: AlignUniformLosses = field(default_factory=AlignUniformLosses)
    objective: Objective = "align_uniform"
    """What two views of an image are to each other: alignment + β · uniformity, or the loss of a named method. What a method
    adds (SSD's two terms, a penalty) is added to it."""
    nt_xent: NtXentOptions = field(default_factory=NtXentOptions)
    """For `objective = "simclr"`."""
    vicreg: VicRegOptions = field(default_factory=VicRegOptions)
    """For `objective = "vicreg"`."""
    barlow_twins: BarlowTwinsOptions = field(default_factory=BarlowTwinsOptions)
    """For `objective = "barlow_twins"`."""
    lr: Any = 0.1
    """Learning rate: a number, or a schedule over the rounds as `ssd.method.schedule` reads it."""
    weighting: Literal["batches", "images"] = "batches"
    """What a client's aggregation weight counts: mini-batches per epoch (official code) or images (paper)."""
    forward: Literal["together", "apart"] = "together"
    """How the two views go through the model: as one batch of 2 B, or in two passes of B (official code). BatchNorm sees
    what goes through together; its running statistics move twice a step where views go apart."""
    initialisation: Initialisation = "fan_out"
    """Initial weights of convolutions: normal by fan-out (as torchvision's networks), or `torch`'s default, uniform by
    fan-in (as an outside check of the official code says)."""
    start: Literal["received", "own"] = "received"
    """What a visit starts from: the received version, or the model the client was left with after its last visit (before
    its first one: version 0), which then is its state. With `own` nobody learns from anybody, and the averaged model is an irrelevant by-product."""
    buffers: BufferPolicy = "weighted"
    """BatchNorm statistics: `weighted` like parameters (SSD's official code), `averaged` with every client counting once, or
    `local`."""
    quality: QualityOptions | None = None
    """Representation quality from sums over the clients' own images, in the rounds that follow an evaluated version.
    Off unless asked for: without secure aggregation the sums of one client are as telling as its update."""
    bounds: Bounds = field(default_factory=Bounds)

    def pair_loss(self) -> PairLoss | None:
        """The loss of two views' embeddings; None: alignment and uniformity."""
        match self.objective:
            case "simclr":
                return partial(nt_xent, options=self.nt_xent)
            case "vicreg":
                return partial(vicreg, options=self.vicreg)
            case "barlow_twins":
                return partial(barlow_twins, options=self.barlow_twins)
            case _:
                return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SsdConfig(AlignUniformConfig):
    """Settings of SSD."""

    preset: Literal["official", "code", "paper", "paper_literal"] = "official"
    losses: SsdLosses = field(default_factory=SsdLosses)
    alpha: float = 10.0
    """Factor on a client's own dimensions (Eq. 6)."""
    block: int | None = None
    """Dimensions per client; None: floor(D / expected clients)."""
    allocation: Literal["auto", "disjoint", "balanced"] = "auto"
    assignment: Literal["client", "position"] = "client"
    """Who a scaling vector belongs to: a client, permanently (paper), or a position in the round's sample (official code);
    `position` is there to measure the difference and needs the coordinator's reproducible mode."""
    basis: Literal["rotated", "axis"] = "rotated"
    """`rotated`: one random orthonormal basis shared by all (official code); `axis`: coordinates (paper)."""


_SINCE: Mapping[str, Json] = {
    "forward": "together",
    "initialisation": "fan_out",
    "objective": "align_uniform",
    "nt_xent": to_json(NtXentOptions()),
    "vicreg": to_json(VicRegOptions()),
    "barlow_twins": to_json(BarlowTwinsOptions()),
}
"""Settings that came later, with the value that everybody had before."""


def declared(config: AlignUniformConfig) -> dict[str, Json]:
    """A resolved configuration as a declaration holds it.

    Later settings are left out where they change nothing, so that declarations made before them keep their digest.
    """
    value: dict[str, Json] = {
        key: item for key, item in to_json(config).items() if key not in _SINCE or item != _SINCE[key]
    }
    if not config.views.snap:
        value["views"] = {key: item for key, item in value["views"].items() if key != "snap"}
    return value


Config = TypeVar("Config", bound=AlignUniformConfig)


def resolve(cls: type[Config], config: Mapping[str, Json]) -> Config:
    """A configuration with every default filled in.

    Raises:
        SettingsError: every unknown key, wrong type, bad value and contradiction.

    """
    mistakes: list[str] = []
    base: dict[str, Json] = {}
    preset = config.get("preset", "official")
    if issubclass(cls, SsdConfig) and preset in BASES:
        base |= {"losses": to_json(LOSS_PRESETS[preset]), "basis": BASES[preset]}
    views = config.get("views", {})
    views = {"preset": views} if isinstance(views, str) else views
    if isinstance(views, Mapping) and views.get("preset", "official") in VIEW_PRESETS:
        base["views"] = to_json(VIEW_PRESETS[views.get("preset", "official")])
    try:
        resolve_schedules({"lr": config.get("lr", 0.1)}, 1, 2)
    except (ValueError, TypeError) as error:
        mistakes.append(f"config.lr: {error}")
    try:
        settings = read(cls, merge(base, {**config, "views": views}), "config")
        settings = replace(settings, **_filled(settings))
    except SettingsError as error:
        raise SettingsError([*error.mistakes, *mistakes]) from error
    if isinstance(settings, SsdConfig):
        mistakes += _contradictions(settings)
    try:
        quality_declaration(settings)
    except ValueError as error:
        mistakes.append(f"config.{error}")
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def _filled(settings: AlignUniformConfig) -> dict[str, Json]:
    """The model and the projector with their defaults filled in."""
    try:
        model = settings.model.resolved()
    except ValueError as error:
        raise SettingsError([f"config.model: {error}"]) from error
    assert model.feature_dim is not None
    if settings.projector is None:
        return {"model": model}
    try:
        return {"model": model, "projector": settings.projector.resolved(model.feature_dim)}
    except ValueError as error:
        raise SettingsError([f"config.projector: {error}"]) from error


def embedding_dim(settings: AlignUniformConfig) -> int:
    """Length of z under a resolved configuration."""
    size = settings.model.feature_dim if settings.projector is None else settings.projector.out_dim
    assert size is not None
    return size


def quality_declaration(settings: AlignUniformConfig) -> QualityDeclaration | None:
    """What is measured in training rounds under a resolved configuration."""
    assert settings.model.feature_dim is not None
    dimensions = {"h": settings.model.feature_dim, "z": embedding_dim(settings)}
    return settings.quality.declaration(dimensions) if settings.quality else None


def _contradictions(settings: SsdConfig) -> list[str]:
    mistakes = []
    if settings.losses.delta != 0.0:
        if settings.projector is None:
            mistakes.append(f"config.projector: {NO_PROJECTOR}")
        elif settings.projector.out_dim != settings.model.feature_dim:
            mistakes.append(
                f"config.projector.out_dim is {settings.projector.out_dim} but distillation compares z with h, "
                f"whose length is {settings.model.feature_dim}: make them equal or set losses.delta = 0"
            )
    if settings.alpha <= 0.0:
        mistakes.append(f"config.alpha must be positive, got {settings.alpha}")
    if settings.block is not None and not 1 <= settings.block <= embedding_dim(settings):
        mistakes.append(
            f"config.block must be 1 to {embedding_dim(settings)} (the embedding), got {settings.block}"
        )
    return mistakes
