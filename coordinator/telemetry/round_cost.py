"""What the present attempt costs: bytes each way and the clients' own work, for its record and for metrics."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.telemetry.metrics import CoordinatorMetrics


class RoundCost:
    """The costs of one attempt at a time.

    Args:
        metrics: counts the bytes of all attempts.
        now: monotonic seconds at which the coordinator started.
    """

    def __init__(self, metrics: CoordinatorMetrics, now: float) -> None:
        self._metrics = metrics
        self.begin(now)

    def begin(self, now: float) -> None:
        """Another attempt opens, at so many monotonic seconds."""
        self.opened = now
        self.bytes_up = 0
        self.bytes_down = 0
        self._training_seconds: list[float] = []

    def received(self, nbytes: int) -> None:
        """Bytes of uploads came up."""
        self.bytes_up += nbytes
        self._metrics.transferred("up", nbytes)

    def sent(self, nbytes: int) -> None:
        """Bytes of blobs went down."""
        self.bytes_down += nbytes
        self._metrics.transferred("down", nbytes)

    def trained(self, seconds: Iterable[float]) -> None:
        """Clients of the sum worked for so long each."""
        self._training_seconds.extend(seconds)

    @property
    def slowest(self) -> float:
        """The slowest client's own work, in seconds."""
        return max(self._training_seconds, default=0.0)
