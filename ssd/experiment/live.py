"""What an experiment shows while it runs: running cells on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ssd.daemon.printable import printable_lines
from ssd.federation.words import duration, number

Json = Any


class Display:
    """A context manager. `say` prints a line that stays; `cell` shows the newest state of one cell."""

    def __init__(
        self, console: Console, total: int, every: int = 10, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._total = total
        self._every = every
        self._clock = clock
        self._started = clock()
        self._running: dict[str, str] = {}
        self._finished = self._failed = 0
        self._said: dict[str, tuple[str, int]] = {}
        self._live = (
            Live(self._draw(), console=console, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._draw())
            self._live.stop()

    def say(self, sentence: str) -> None:
        """One line, with the time since the start."""
        at = f"[{duration(self._clock() - self._started):>6}]"
        self._console.print(
            printable_lines(f"{at} {sentence}"), highlight=False, markup=False, soft_wrap=True
        )

    def cell(self, name: str, event: Mapping[str, Json]) -> None:
        """A cell's process reported something."""
        if event.get("note"):
            self.say(f"{name}: {event['note']}")
        text = phase = str(event.get("phase", ""))
        reached = int(event.get("round", 0))
        if reached:
            text += f", round {reached} of {event['rounds']}, loss {number(event.get('loss'))}"
        self._running[name] = text
        before, round_said = self._said.get(name, ("", 0))
        if self._live is not None:
            self._live.update(self._draw())
        elif phase != before or reached >= round_said + self._every:
            round_said = reached
            if phase != "done":
                self.say(f"{name}: {text}")
        self._said[name] = (phase, round_said)

    def ended(self, name: str, *, failed: bool) -> None:
        """A cell is over."""
        self._running.pop(name, None)
        self._finished += not failed
        self._failed += failed
        self.say(f"{name}: {'failed' if failed else 'finished'} ({self._finished} of {self._total} done)")
        if self._live is not None:
            self._live.update(self._draw())

    def skipped(self, count: int) -> None:
        """So many were finished before."""
        self._finished += count

    def _draw(self) -> Group:
        head = f"{self._finished} of {self._total} cells finished, {self._failed} failed, {duration(self._clock() - self._started)}"
        rows = [Text(f"  {name}  {text}", no_wrap=True) for name, text in self._running.items()]
        return Group(Text(head, style="bold"), *rows)
