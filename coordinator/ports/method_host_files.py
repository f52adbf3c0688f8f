"""What the coordinator and its method host hand each other around a server hook: names of files, no arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RawArray = tuple[Path, tuple[int, ...]]
"""A file of little-endian float32 and the shape of what it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectedFiles:
    """One client's collected values, for the hook to look at; both are flat `.npy` files."""

    client: str
    weight: int
    values: Path
    """float32: the collected groups in declared order."""
    statistics: Path
    """float64: the collected statistics in declared order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReductionFiles:
    """A `ssd.method.protocol.Reduction` as files."""

    seed: int
    round: int
    rounds: int
    weight: int
    clients: int
    values: Mapping[str, float]
    base: RawArray
    delta: Path
    """`.npy`, float32 [n]."""
    statistics: Path
    """`.npy`, float64: all statistics in declared order, flat."""
    state: Mapping[str, Path]
    """`.npy` each."""
    artefacts: Mapping[str, RawArray]
    collected: tuple[CollectedFiles, ...]
    """In client-id order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFiles:
    """A checked `ssd.method.protocol.ReductionResult` as files."""

    delta: Path | None
    """`.npy`, float32 [n]."""
    state: Mapping[str, Path]
    """`.npy` each."""
    artefacts: Mapping[str, RawArray]
    metrics: Mapping[str, float]
