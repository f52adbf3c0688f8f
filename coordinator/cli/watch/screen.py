"""A whole terminal for a picture that is drawn again and again, and the terminal as it was when that is over."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

SIGTERM_CODE = 128 + signal.SIGTERM
"""What a process that SIGTERM ends is expected to leave."""


class Screen:
    """The alternate screen of a terminal, without a cursor and without an echo of what is typed.

    Behaviour: SIGTERM leaves as if the program had called `sys.exit`; Ctrl-Z gives the terminal back until the
    program goes on; a terminal that changes its size ends `wait` early. To be used from the main thread.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False)
        self._wake: tuple[int, int] = (-1, -1)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the terminal for as long as the block lasts."""
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        # A handler in Python alone would not end the wait; the byte that is written for each signal does.
        before = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        handlers: dict[int, Any] = {
            signal.SIGWINCH: lambda *_: None,
            signal.SIGTERM: _leave,
            signal.SIGTSTP: self._suspend,
        }
        former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        echo = _Echo()
        try:
            with echo.off(), self._live:
                self._echo = echo
                yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            for end in self._wake:
                os.close(end)

    def draw(self, picture: RenderableType) -> None:
        """Show a picture instead of the last one."""
        self._live.update(picture, refresh=True)

    def wait(self, seconds: float) -> bool:
        """Wait; True if the terminal changed (or a signal came) before the time was over."""
        ready, _, _ = select.select([self._wake[0]], [], [], seconds)
        if ready:
            os.read(self._wake[0], 4096)
        return bool(ready)

    def _suspend(self, *_: object) -> None:
        self._live.stop()
        self._echo.restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        # Here it goes on, when the shell says so.
        self._echo.silence()
        self._live.start(refresh=True)


def _leave(*_: object) -> None:
    sys.exit(SIGTERM_CODE)


class _Echo:
    """Whether the terminal shows what is typed."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._former: list[Any] | None = None

    @contextmanager
    def off(self) -> Iterator[None]:
        self.silence()
        try:
            yield
        finally:
            self.restore()

    def silence(self) -> None:
        if self._file is None:
            return
        self._former = termios.tcgetattr(self._file)
        changed = termios.tcgetattr(self._file)
        changed[3] &= ~termios.ECHO
        termios.tcsetattr(self._file, termios.TCSADRAIN, changed)

    def restore(self) -> None:
        if self._file is not None and self._former is not None:
            # What was typed meanwhile was meant for nobody.
            termios.tcsetattr(self._file, termios.TCSAFLUSH, self._former)
