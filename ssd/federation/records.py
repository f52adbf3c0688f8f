"""What is known of a federation while it runs, after it ran, and when it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any


class DaemonFailed(RuntimeError):
    """A process failed. `log` is its file, `lines` are its last words."""

    def __init__(self, message: str, *, log: Path | None = None, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = log
        self.lines = tuple(lines)


@dataclass(slots=True)
class Progress:
    """What is known of a federation while it runs."""

    title: str
    rounds: int
    clients: int
    """How many there are."""
    phase: str = "waiting its turn"
    round: int = 0
    """The last committed one."""
    connected: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    """Mean of each term in the last committed round."""
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    """Version -> measures, as the evaluator reported them."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    """Sentences worth a line of their own, such as a client that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remains:
    """What a federation leaves behind."""

    run_id: str
    version: int
    model_digest: str
    rounds: tuple[Mapping[str, Json], ...]
    """One record per committed round, oldest first, as `ssd-coordinator rounds` gives them."""
    evaluations: Mapping[int, Mapping[str, float]]
    clients: tuple[Mapping[str, Json], ...]
    encoder: Path | None
    """None where the plan asks for none."""
    seconds: float
    """From the first round opened under our eyes to the last commit."""
    untrained_digest: str = ""
    """Model digest of version 0, where it was exported as well."""
