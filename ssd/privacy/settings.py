"""The settings of differential privacy, and what about a declaration stands in its way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ssd.updates.declaration import Declaration, Reducer


class PrivacyRefused(ValueError):
    """No guarantee can be given; the text says why."""


class NoisePlace(StrEnum):
    """Who adds the noise."""

    DISTRIBUTED = "distributed"
    CENTRAL = "central"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivacySettings:
    """The switch: part of the run's configuration and of the masked plan's digest."""

    place: NoisePlace
    clip_norm: float
    """C: largest L2 norm of one client's update; longer ones are scaled down."""
    noise_multiplier: float
    """z: the noise's standard deviation over one client's largest influence."""
    delta: float
    """The probability with which the guarantee may fail; well below one over the number of clients."""
    min_honest: int = 1
    """The fewest honest participants whose noise must be in a sum; 1 where the coordinator adds it."""

    def __post_init__(self) -> None:
        for name, value in (("clip_norm", self.clip_norm), ("noise_multiplier", self.noise_multiplier)):
            if not (math.isfinite(value) and value > 0):
                raise PrivacyRefused(f"{name} must be positive and finite, not {value!r}")
        if not 0 < self.delta < 1:
            raise PrivacyRefused(f"delta must lie between 0 and 1, not {self.delta!r}")
        if type(self.min_honest) is not int or self.min_honest < 1:
            raise PrivacyRefused(f"min_honest must be a positive integer, not {self.min_honest!r}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object holding every field."""
        return {
            "place": self.place.value,
            "clip_norm": self.clip_norm,
            "noise_multiplier": self.noise_multiplier,
            "delta": self.delta,
            "min_honest": self.min_honest,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PrivacySettings:
        """The inverse of `to_json`; raises `PrivacyRefused` for anything else."""
        try:
            return cls(**{**value, "place": NoisePlace(value["place"])})
        except (KeyError, TypeError, ValueError) as error:
            raise PrivacyRefused(f"not privacy settings: {error}") from error


def obstacles(declaration: Declaration) -> list[str]:
    """Why this method cannot run under differential privacy as it is; empty if it can."""
    found = []
    for group in declaration.groups:
        if not group.compress:
            found.append(
                f"group {group.name!r} is averaged exactly (BatchNorm buffers): it would leave clients without noise; "
                "keep the buffers on the clients (buffers = local), or use a network without them"
            )
        if group.reducer is Reducer.SUM:
            found.append(f"group {group.name!r} is summed, not averaged over the clients")
        if group.collect:
            found.append(f"group {group.name!r} is collected from individual clients")
    if declaration.server_hook and declaration.statistics:
        found.append(
            f"the server hook of method {declaration.method} works with statistics, which are not reported under "
            "differential privacy"
        )
    return found


def left_out(declaration: Declaration) -> list[str]:
    """What clients would report without noise and therefore do not report: statistics, quality sums, client tests."""
    found = [f"statistic {each.name}" for each in declaration.statistics]
    if declaration.quality is not None:
        found.append("representation quality in training rounds")
    if declaration.client_evaluation:
        found.append("measures on the clients' own test images")
    return found
