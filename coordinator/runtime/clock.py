"""The one place where the coordinator reads time."""

from __future__ import annotations

import time


class SystemClock:
    """The `Clock` port over the operating system."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds, for records and display."""
        return time.time()
