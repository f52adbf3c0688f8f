"""Time as a port, so that tests can turn the hands."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time. `monotonic` for durations, `wall` (Unix seconds) for records and display only."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...
