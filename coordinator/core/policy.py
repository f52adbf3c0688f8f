"""The settings the round machine decides by. Fixed while a run lives, except what the configuration lists."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """Which invariant a run promises (design §4.3)."""

    REPRODUCIBLE = "reproducible"
    """Fixed cohorts over all registered clients, no deadline: one digest whatever happens on the way."""
    ELASTIC = "elastic"
    """Connected clients, goal count, over-selection, deadline: the digest follows from the journaled sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPolicy:
    """How rounds are opened and closed. All durations in seconds of coordinator up-time."""

    mode: Mode
    rounds: int
    cohort_size: int
    seed: int
    min_updates: int = 1
    over_selection: float = 1.0
    deadline_seconds: float = 600.0
    deadline_quantile: float | None = None
    """Elastic: close at this quantile of recent report times (times a margin), capped by the deadline."""
    wait_for_clients_seconds: float = 0.0
    """How long to wait for enough clients before the run halts; 0: for ever."""
    retry_seconds: float = 5.0
    """Pause before an abandoned round or a failed client is tried again."""
    max_client_failures: int = 3
    """Reproducible: failures of one client in one attempt after which the run halts for the operator."""
    expected_clients: int | None = None
    """Reproducible without names: the first round waits until this many clients are registered."""
    max_clients: int | None = None
    """More are refused: a disjoint allocation has no dimensions left for them."""
    named_clients: tuple[str, ...] = ()
    """Clients known at run creation; their index is their rank in the sorted list."""
    min_participants: int = 0
    """Secure aggregation: no sum is over fewer workers; 0: updates are not masked."""

    @property
    def secure(self) -> bool:
        """Whether updates come masked, one upload a worker, and only their sum is opened."""
        return self.min_participants > 0


QUANTILE_MARGIN = 1.5
"""The running-quantile deadline leaves this much room over the quantile itself."""
QUANTILE_WINDOW = 256
"""How many recent report times the running quantile looks at."""
QUANTILE_MINIMUM = 16
"""Fewer report times than this say too little; the fixed deadline holds."""
