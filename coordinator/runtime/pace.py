"""How fast something may come: a steady rate after a burst. Pure; the caller brings the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """A bucket of `rate * burst_seconds` units that fills at `rate` units a second."""

    rate: float
    burst_seconds: float
    _full_at: float = float("-inf")
    """When the bucket is full again."""

    def seconds_to_wait(self, units: float, now: float) -> float:
        """Take `units` out; how long to wait before the next ones. May be owed: a single one is always let through.

        Args:
            units: what came, at least 0.
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now) + units / self.rate
        return max(0.0, self._full_at - now - self.burst_seconds)
