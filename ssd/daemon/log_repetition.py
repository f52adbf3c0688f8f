"""Events that somebody else can cause as often as they like: the first of a minute are written, the rest are counted.

Who repeats a call a thousand times a second would otherwise fill the disk and hide everything else. An event says whom
it is about (`ssd.daemon.logs.repeatable`); of each event about the same one the first few of a minute go through. When
the minute is over, one line tells how many did not. Metrics count all of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PER = "ssd_per"
"""Attribute of a record: what it is about; records without it always go through."""
FEW = 5
WINDOW_SECONDS = 60.0
MOST_KEYS = 1000
"""Beyond so many at once, those that come later are counted together."""
Key = tuple[str, ...]
_OTHERS: Key = ("others",)


@dataclass(slots=True)
class _Window:
    until: float
    seen: int = 0


class Repetition(logging.Filter):
    """A handler's filter.

    Args:
        told: gets (event, what it was about, how many were not written) of a minute that is over.
        now: seconds of a clock that only goes forward.
    """

    def __init__(
        self, told: Callable[[str, Key, int], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._told = told
        self._now = now
        self._windows: dict[tuple[str, Key], _Window] = {}
        self._next = 0.0
        self._mutex = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        now, per = self._now(), getattr(record, PER, None)
        with self._mutex:
            over = self._over(now)
            passes = per is None or self._passes((record.msg, per), now)
        for (name, key), left in over:
            self._told(name, key, left)
        return passes

    def _passes(self, key: tuple[str, Key], now: float) -> bool:
        if key not in self._windows and len(self._windows) >= MOST_KEYS:
            key = (key[0], _OTHERS)
        window = self._windows.setdefault(key, _Window(now + WINDOW_SECONDS))
        self._next = min(self._next, window.until) if len(self._windows) > 1 else window.until
        window.seen += 1
        return window.seen <= FEW

    def _over(self, now: float) -> list[tuple[tuple[str, Key], int]]:
        """Windows that have ended, with how many records of each were not written."""
        if not self._windows or now < self._next:
            return []
        ended = [(key, window) for key, window in self._windows.items() if window.until <= now]
        for key, _ in ended:
            del self._windows[key]
        self._next = min((window.until for window in self._windows.values()), default=0.0)
        return [(key, window.seen - FEW) for key, window in ended if window.seen > FEW]
