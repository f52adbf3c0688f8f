"""What federation is simulated: its workers and clients, and the coordinator's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd.random_stream import RandomStream

HOSTS = (("w1", ("a", "b")), ("w2", ("c",)), ("w3", ("d",)))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that is fixed before the first operation. Times are virtual seconds."""

    mode: str = "reproducible"
    rounds: int = 2
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = HOSTS
    level: str = "off"
    """Of secure aggregation."""
    hook: bool = False
    strategy: str = "average"
    parameters: int = 64
    cohort: int = 3
    """Elastic mode only."""
    deadline_seconds: float = 20.0
    min_updates: int = 2
    max_training_seconds: float = 4.0
    slow: tuple[tuple[str, float], ...] = ()
    """Clients whose training takes so long, whatever the round."""
    jitter_seconds: float = 0.0
    """Messages take up to so much longer than the least."""
    seed: int = 0
    """Of the jitter."""

    @property
    def clients(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(sorted(client for _, own in self.hosts for client in own))

    def training_seconds(self, round_number: int, client: str) -> float:
        """How long a client trains in a round."""
        draw = RandomStream("simulated training", round_number, client).uniform()
        return dict(self.slow).get(client, 0.5 + draw * (self.max_training_seconds - 0.5))

    def tables(self) -> dict[str, Any]:
        """The coordinator's configuration, but for its state directory."""
        elastic = self.mode == "elastic"
        secure: dict[str, Any] = {"level": self.level}
        if self.level != "off":
            secure |= {"assumed_corrupt": 0.0, "tolerated_dropout": 0.34, "phase_seconds": 10.0}
        return {
            "run": {
                "mode": self.mode,
                "rounds": self.rounds,
                "clients": () if elastic else self.clients,
                "expected_clients": len(self.clients) if elastic else None,
            },
            "round": {
                "cohort_size": self.cohort if elastic else len(self.clients),
                "over_selection": 1.3 if elastic else 1.0,
                "deadline_seconds": self.deadline_seconds,
                "min_updates": self.min_updates,
                "retry_seconds": 1.0,
            },
            "limits": {"min_free_bytes": 1, "heartbeat_seconds": 5.0},
            "retention": {"full_versions": 100},
            "evaluation": {"every": 0},
            "method": {"name": "synthetic", "config": {"parameters": self.parameters, "hook": self.hook}},
            "strategy": {"name": self.strategy, "learning_rate": 1.0 if self.strategy == "average" else 0.05},
            "secure_aggregation": secure,
        }
