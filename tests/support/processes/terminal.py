"""A program on a terminal of its own: what it draws, what is typed, how large it is."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from processes.federation import PATIENCE

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")
_HOME = "\x1b[H"
# The terminal is only the program's own if it says so itself; then Ctrl-C typed there is a signal.
_TRAMPOLINE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """Used as a context manager; a program that is still there at the end is killed."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        lines: int = 40,
        columns: int = 100,
    ) -> None:
        self._own, theirs = pty.openpty()
        self.resize(lines, columns)
        self.settings = termios.tcgetattr(self._own)
        self.drawn = ""
        """Everything, controls included."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TRAMPOLINE, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**environment, "TERM": "xterm-256color"},
        )
        # Kept open: without anybody at it the terminal forgets its settings.
        self._theirs = theirs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
        os.close(self._own)
        os.close(self._theirs)

    def resize(self, lines: int, columns: int) -> None:
        """Of the window."""
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._own, keys)

    def send(self, signal_number: int) -> None:
        """A signal to the program."""
        self._process.send_signal(signal_number)

    @property
    def picture(self) -> list[str]:
        """The lines of the newest frame that is whole, without colours."""
        end = self.drawn.rfind(_HOME)
        begin = self.drawn.rfind(_HOME, 0, max(0, end))
        return [] if begin < 0 else _CONTROL.sub("", self.drawn[begin + len(_HOME) : end]).splitlines()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Read until something is true of what was drawn."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            there = time.monotonic() < deadline and self._read(0.5)
            assert there, f"waited in vain for {what}:\n{self.drawn[-4000:]}"

    def shows(self, text: str) -> None:
        """Wait for a picture with this in it."""
        self.until(lambda: any(text in line for line in self.picture), text)

    def ended(self) -> int:
        """Wait for the program to end; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        code = self._process.wait(1)
        while select.select([self._own], [], [], 0)[0]:
            self._read(0)
        return code

    def settings_now(self) -> list[Any]:
        """What the terminal does with what is typed."""
        return termios.tcgetattr(self._own)

    def _read(self, seconds: float) -> bool:
        """False if the program is gone and everything is read."""
        if select.select([self._own], [], [], seconds)[0]:
            self.drawn += os.read(self._own, 1 << 16).decode(errors="replace")
            return True
        return self._process.poll() is None
