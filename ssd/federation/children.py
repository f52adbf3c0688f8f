"""Processes that end when this one ends, whichever way it ends.

Every child leads a session of its own, so that Ctrl-C reaches this process alone and the children are stopped in
order. If it is killed outright, the kernel tells its children (on Linux; elsewhere they would stay).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ssd.daemon import child_process

STOP_SECONDS = 8.0
"""How long daemons may take to stop politely."""
_LEASH = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); "  # PR_SET_PDEATHSIG, SIGTERM; it survives the exec below
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class Child:
    """One process and where its output goes."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self.process.poll()

    def tail(self, lines: int = 12) -> list[str]:
        """The last lines of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]


class Children:
    """A context manager that ends everything started within it.

    Args:
        stop_seconds: how long they may take to stop politely.
    """

    def __init__(self, stop_seconds: float = STOP_SECONDS) -> None:
        self._children: list[Child] = []
        self._stop_seconds = stop_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def start(self, name: str, arguments: Sequence[str], log: Path, *, output: Path | None = None) -> Child:
        """Start `python ARGUMENTS` (`-m MODULE …`), what it writes appended to `log`; what it prints to `output`, if given."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink, (output or log).open("ab") as printed:
            process = subprocess.Popen(
                leashed(child_process.python(*arguments)),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=sink,
                env=environment(os.environ),
                start_new_session=True,
            )
        child = Child(name, log, process)
        self._children.append(child)
        return child

    def stop(self) -> None:
        """End all of them: asked first, killed if that takes too long. Safe to call again."""
        try:
            for child in reversed(self._children):
                _signal(child, signal.SIGTERM)
            deadline = time.monotonic() + self._stop_seconds
            for child in self._children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            # Also when a second Ctrl-C cuts the waiting short.
            for child in self._children:
                if child.process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.process.pid, signal.SIGKILL)
                    child.process.wait()
            self._children.clear()


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def leashed(command: Sequence[str]) -> list[str]:
    """`command` such that the kernel ends it when this process dies (Linux)."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: one thread per process, and no setting of another federation."""
    # Several processes share the cores; a numerical library's own threads would only wait for each other.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    whole = child_process.environment({**threads, "PYTHONUNBUFFERED": "1"}, environ)
    return {name: value for name, value in whole.items() if not name.startswith("SSD_")}


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP do what Ctrl-C does, so that cleaning up happens for them too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
