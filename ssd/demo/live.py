"""What the demo shows while it runs: a table that is redrawn on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ssd.daemon.printable import printable_lines
from ssd.federation.records import Progress
from ssd.federation.words import duration, number, size

QUALITY = "linear_probe_2_per_class"
SPREAD = "uniformity_inter"
_NOTES = 4
_BAR = 20


class Display(Protocol):
    """Behaviour: used as a context manager; `show` may be called many times a second."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, sentence: str) -> None:
        """One line of its own."""

    def show(self, progress: Progress) -> None:
        """The federation `progress` is about has moved."""


def display_for(console: Console, waiting: Sequence[Progress], every: int) -> Display:
    """The display that suits the console.

    Args:
        console: where to.
        waiting: the federations that will be shown, in order.
        every: rounds between two plain lines.
    """
    return LiveTable(console, waiting) if console.is_terminal else PlainLines(console, every)


class LiveTable:
    """Two lines per federation, redrawn in place."""

    def __init__(self, console: Console, waiting: Sequence[Progress]) -> None:
        self._rows = {progress.title: progress for progress in waiting}
        self._live = Live(self._draw(), console=console, refresh_per_second=5)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._draw())
        self._live.stop()

    def say(self, sentence: str) -> None:
        """One line above the table."""
        self._live.console.print(printable_lines(sentence), highlight=False, markup=False)

    def show(self, progress: Progress) -> None:
        """Redraw."""
        self._rows[progress.title] = progress
        self._live.update(self._draw())

    def _draw(self) -> Group:
        lines: list[RenderableType] = []
        for row in self._rows.values():
            head = Table.grid(padding=(0, 2, 0, 0))
            head.add_row(
                Text(row.title.ljust(max(map(len, self._rows))), style="bold"),
                ProgressBar(total=row.rounds, completed=row.round, width=_BAR),
                f"round {row.round}/{row.rounds}",
                duration(row.seconds),
                Text(row.phase, style="dim"),
            )
            lines += [head, Text(_facts(row), no_wrap=True)]
            lines += [Text(f"  ! {note}", style="yellow") for note in row.notes[-_NOTES:]]
        key = "probe: linear, 2 labels per class; spread: uniformity between clients"
        return Group(*lines, Text(key, style="dim"))


def _facts(row: Progress) -> str:
    """What is known of one federation, in at most 80 columns."""
    return (
        f"  {row.connected} clients  loss {number(row.losses.get('loss'))}  "
        f"{size(row.bytes_up)} up  {size(row.bytes_down)} down  "
        f"probe {_newest(row, QUALITY, percent=True)}  spread {_newest(row, SPREAD, percent=False)}"
    )


class PlainLines:
    """A line for every few rounds and for everything unusual."""

    def __init__(self, console: Console, every: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._every = every
        self._clock = clock
        self._started = clock()
        self._said: dict[str, tuple[str, int, int, int]] = {}
        """Title -> (phase, round, newest evaluation, notes) that were printed last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, sentence: str) -> None:
        """One line."""
        at = f"[{self._clock() - self._started:6.1f} s]"
        self._console.print(
            printable_lines(f"{at} {sentence}"), highlight=False, markup=False, soft_wrap=True
        )

    def show(self, progress: Progress) -> None:
        """Say what is new and worth a line."""
        title = progress.title
        phase, round_said, evaluated_said, notes_said = self._said.get(title, ("", 0, -1, 0))
        if progress.phase != phase:
            self.say(f"{title}: {progress.phase}")
        if progress.round >= round_said + self._every or round_said < progress.round == progress.rounds:
            round_said = progress.round
            self.say(
                f"{title}: round {progress.round} of {progress.rounds}, loss {number(progress.losses.get('loss'))}, "
                f"{progress.connected} of {progress.clients} clients, {size(progress.bytes_up)} up, "
                f"{size(progress.bytes_down)} down"
            )
        newest = max(progress.evaluations, default=-1)
        if newest > evaluated_said:
            self.say(
                f"{title}: version {newest} measured: linear probe on 2 labels per class "
                f"{_newest(progress, QUALITY, percent=True)}, uniformity between clients "
                f"{_newest(progress, SPREAD, percent=False)}"
            )
        for note in progress.notes[notes_said:]:
            self.say(f"{title}: {note}")
        self._said[title] = (progress.phase, round_said, newest, len(progress.notes))


def _newest(progress: Progress, measure: str, *, percent: bool) -> str:
    for version in sorted(progress.evaluations, reverse=True):
        value = progress.evaluations[version].get(measure)
        if value is not None:
            return f"{100 * value:.1f} %" if percent else f"{value:.3f}"
    return "-"
