"""A bar on the terminal for work that takes minutes; nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Track = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Track]:
    """A `track(what, done, total)` that draws on `console` if it is a terminal; the bar goes when the work is done."""
    if not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        shown = ""

        def track(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                progress.reset(task, total=total, description=what)
                shown = what
            progress.update(task, completed=done)

        yield track
