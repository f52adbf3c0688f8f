"""A wall clock that somebody sets back and forth by years while the daemon runs; for `faulty.py swap:`."""

from __future__ import annotations

import itertools

from coordinator.runtime.clock import SystemClock

YEAR = 365 * 86400.0
JUMPS = (0.0, -50 * YEAR, 3600.0, -3600.0, 50 * YEAR, -YEAR)


class JumpingClock(SystemClock):
    """Every reading of the wall is from another year; `monotonic` is what it always was."""

    def __init__(self) -> None:
        super().__init__()
        self._jumps = itertools.cycle(JUMPS)

    def wall(self) -> float:
        return super().wall() + next(self._jumps)
