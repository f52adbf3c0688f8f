"""Records of what people see of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.ports.figures import Figures
from coordinator.sums.round_sum import SumView
from coordinator.workers.sessions import WorkerView
from ssd_wire.messages import ModelVersion


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusView:
    """The coordinator's state for people."""

    run_id: str
    method: str
    mode: str
    phase: str
    waiting_for: str
    version: ModelVersion
    round: int
    attempt: int
    rounds: int
    cohort: Mapping[str, int]
    goal: int = 0
    """Updates that close the present attempt."""
    opened_at: float | None = None
    """Monotonic seconds at which the present attempt was opened; None: there is none."""
    deadline_at: float | None = None
    """Monotonic seconds; None: it has none."""
    paused: bool = False
    draining: bool = False
    awaited: int = 0
    """Clients that have to connect before it goes on."""
    workers: tuple[WorkerView, ...]
    registered_clients: int
    connected_clients: int
    revoked_clients: int = 0
    evaluation: Mapping[str, float] = field(default_factory=dict)
    evaluated_version: int = 0
    figures: Figures = field(default_factory=Figures)
    """Of the newest version, with the quality that was measured last and what privacy has cost by now."""
    uptime_seconds: float = 0.0
    privacy: str = ""
    """What differential privacy costs so far and under which assumptions, or why nothing can be said; empty: off."""
    masks: SumView | None = None
    """Where secure aggregation stands; None: the run has none."""
