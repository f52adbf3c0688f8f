"""`ssd-coordinator watch`: a picture of the run in the terminal that follows it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from coordinator.cli.reaching import Reach, reaching

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator.rpc.operator.channel import Caller

PATIENCE_SECONDS = 5.0
"""For one answer: a picture that stands still is worse than one that says it waits."""

PLAIN_WIDTH = 100
"""Of a picture in a file or pipe, unless COLUMNS says otherwise."""


def watch_command() -> click.Command:
    """The command."""

    @click.command("watch")
    @reaching
    @click.option(
        "--interval",
        type=click.FloatRange(min=0.2, max=3600),
        default=2.0,
        show_default=True,
        help="Seconds between two looks.",
    )
    @click.option("--once", is_flag=True, help="Print one picture and end.  [default: if not on a terminal]")
    def watch(place: Reach, interval: float, once: bool) -> int:
        """Follow the run: phase, cohort, losses and measures, rounds, workers and who dropped out.

        A coordinator that is restarted is waited for. Ctrl-C ends it, with exit code 0. Colours are left out if
        NO_COLOR is set.
        """
        return _watch(place.caller(), interval, once=once)

    return watch


def _fit(console: Console) -> None:
    """The size of the terminal as it is now; COLUMNS and LINES, which a parent may have exported, stay as they were."""
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return
    if columns > 0 and lines > 0:
        console.width, console.height = columns, lines


def _watch(caller: Caller, interval: float, *, once: bool) -> int:
    from rich.console import Console

    from coordinator.cli.watch.poller import Watcher
    from coordinator.cli.watch.screen import Screen
    from coordinator.cli.watch.view import frame
    from coordinator.rpc.operator.client import OperatorClient, Unreachable

    terminal = sys.stdout.isatty()
    width = None if terminal or "COLUMNS" in os.environ else PLAIN_WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    live = not once and terminal and not console.is_dumb_terminal
    ascii_only = console.options.ascii_only
    watcher = Watcher(
        caller.address,
        lambda: OperatorClient(caller, PATIENCE_SECONDS),
        time.monotonic,
        (Unreachable,) if live else (),
    )
    try:
        if not live:
            console.print(frame(watcher.look(), console.width, ascii_only=ascii_only))
            return 0
        # What cannot be put right by waiting is said on the usual screen.
        scene = watcher.look()
        screen = Screen(console)
        with screen.taken():
            while True:
                _fit(console)
                screen.draw(frame(scene, *console.size, ascii_only=ascii_only))
                if not screen.wait(interval):
                    scene = watcher.look()
    except KeyboardInterrupt:
        return 0 if live else 130
    finally:
        watcher.close()
