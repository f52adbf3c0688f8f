"""How long to wait before trying again: capped exponential growth with full jitter.

Full jitter (a uniform draw between zero and the cap of the step) spreads thousands of workers that lost one
coordinator at the same instant; the draw itself is an argument, so this stays a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """The growth of the waits. All in seconds."""

    first: float = 0.5
    """Longest wait after the first failure."""
    factor: float = 2.0
    cap: float = 30.0
    """Longest wait after any number of failures."""

    def seconds(self, failures: int, uniform: float) -> float:
        """The wait after `failures` (1 or more) failures in a row, for a draw `uniform` in [0, 1)."""
        # The exponent is capped too: 2.0 ** 2000 would overflow on a worker that was alone for weeks.
        longest = min(self.cap, self.first * self.factor ** min(max(failures, 1) - 1, 64))
        return longest * uniform
