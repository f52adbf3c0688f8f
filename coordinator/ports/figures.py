"""The figures of a committed round: typed where the program works with them, one flat mapping where they are stored,
sent and shown.

A figure's name is the name of its field, so it stands in this module alone. Names of what representation quality says
begin with `quality_`, names of what privacy cost begin with `privacy_`; every other name that is no part of the cost
is the method's own. The flat mapping is what the journal's hash chain covers (docs/decisions/0016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from ssd.updates.quality_sums import PREFIX as QUALITY_PREFIX

T = TypeVar("T")
PRIVACY_PREFIX = "privacy_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What went into the round, what came out and what it took."""

    clients: int
    weight: int
    """Sum of the clients' aggregation weights."""
    step_norm: float
    """L2 norm of the step of the optimised groups."""
    seconds: float
    """From the attempt's opening until its version was made."""
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivacyCost:
    """What all rounds up to this one cost in differential privacy."""

    honest: int
    """Fewest participants of a sum that are not assumed corrupt."""
    epsilon: float | None = None
    """None, as the two that follow: none can be given, as a sum held too few honest participants."""
    round_epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """What a round's clients told of the representation they started from."""

    version: int
    """The model version that was measured."""
    measures: Mapping[str, float]
    """`<features>_<measure>` -> value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All the figures of one round; empty for version 0, which no round made."""

    cost: Cost | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    """The method's own: means over its clients, and what its server hook told."""
    quality: Quality | None = None
    """None: the round did not measure."""
    privacy: PrivacyCost | None = None
    """None: without differential privacy."""

    @property
    def statistics(self) -> dict[str, float]:
        """Everything by name. Counts become float64, as they are stored and sent."""
        told = dict(self.losses)
        if self.quality is not None:
            told[MEASURED_VERSION] = float(self.quality.version)
            told |= {f"{QUALITY_PREFIX}{name}": value for name, value in self.quality.measures.items()}
        return told | _flat(self.cost, "") | _flat(self.privacy, PRIVACY_PREFIX)

    @classmethod
    def from_statistics(cls, statistics: Mapping[str, float]) -> Figures:
        """The inverse of `statistics`, bit for bit, whatever was stored.

        What is not complete (a cost without its seconds) or not a whole number where one belongs stays among the
        method's own, so that nothing is lost or rounded on the way back.
        """
        rest = dict(statistics)
        cost, privacy = _typed(Cost, "", rest), _typed(PrivacyCost, PRIVACY_PREFIX, rest)
        quality = None
        if (version := _whole(rest.get(MEASURED_VERSION))) is not None:
            names = [name for name in rest if name.startswith(QUALITY_PREFIX)]
            measures = {name.removeprefix(QUALITY_PREFIX): rest.pop(name) for name in names}
            del measures[MEASURED_VERSION.removeprefix(QUALITY_PREFIX)]
            quality = Quality(version=version, measures=measures)
        return cls(cost=cost, losses=rest, quality=quality, privacy=privacy)


MEASURED_VERSION = f"{QUALITY_PREFIX}version"
_COST_NAMES = frozenset(each.name for each in fields(Cost))
_PRIVACY_NAMES = frozenset(PRIVACY_PREFIX + each.name for each in fields(PrivacyCost))


class Kind(Enum):
    """What a figure tells of; the values are words for people."""

    COST = "round"
    LOSS = "training"
    QUALITY = "representation"
    PRIVACY = "privacy"

    def short(self, name: str) -> str:
        """A figure's name without what all names of its kind begin with."""
        return name.removeprefix({Kind.QUALITY: QUALITY_PREFIX, Kind.PRIVACY: PRIVACY_PREFIX}.get(self, ""))


def kind_of(name: str) -> Kind:
    """What the figure of this name tells of. Only losses are the method's to name."""
    if name in _COST_NAMES:
        return Kind.COST
    if name in _PRIVACY_NAMES:
        return Kind.PRIVACY
    return Kind.QUALITY if name.startswith(QUALITY_PREFIX) else Kind.LOSS


def _flat(group: Cost | PrivacyCost | None, prefix: str) -> dict[str, float]:
    if group is None:
        return {}
    told = {f"{prefix}{each.name}": getattr(group, each.name) for each in fields(group)}
    return {name: float(value) for name, value in told.items() if value is not None}


def _typed(kind: type[T], prefix: str, rest: dict[str, float]) -> T | None:
    """Takes a group's figures out of `rest`; None if they are not all there as they should be."""
    values: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]  # both groups are dataclasses
        value = rest.get(prefix + each.name)
        if value is None and "None" in str(each.type):
            continue
        counts = str(each.type).startswith("int")
        if not isinstance(value, float) or (counts and _whole(value) is None):
            return None
        values[each.name] = int(value) if counts else value
    for name in values:
        del rest[prefix + name]
    return kind(**values)


def _whole(value: float | None) -> int | None:
    counts = isinstance(value, float) and value.is_integer() and math.copysign(1.0, value) > 0.0
    return int(value) if counts and value is not None else None
