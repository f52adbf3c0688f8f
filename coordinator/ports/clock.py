"""Time as a port, so that tests can turn the hands."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, in seconds."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment, for durations. Behaviour: never goes back, whatever becomes of the wall clock."""
        ...

    def wall(self) -> float:
        """Unix seconds, for records and display only. Behaviour: may jump either way."""
        ...
