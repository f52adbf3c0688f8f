"""Ending what an earlier runner left behind.

The processes of a runner end with it. A process that does not (because it hangs, or because the kernel is not Linux and
did not end it) would hold the state directories that its successor needs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_PROGRAMS = (b"coordinator", b"worker")
_POLITE_SECONDS = 10.0


def daemons_of(folder: Path) -> list[int]:
    """Process ids of daemons that run with a configuration file in `folder`; none on systems without /proc."""
    found = []
    start = os.fsencode(folder) + b"/"
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        for flag, program, _, option, config in zip(*(arguments[n:] for n in range(5)), strict=False):
            if flag == b"-m" and program in _PROGRAMS and option == b"--config" and config.startswith(start):
                found.append(int(entry.name))
                break
    return found


def end_daemons_of(folder: Path) -> None:
    """End them: asked first, killed if that takes too long."""
    for number, patience in ((signal.SIGTERM, _POLITE_SECONDS), (signal.SIGKILL, _POLITE_SECONDS)):
        left = daemons_of(folder)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = daemons_of(folder)
        if not left:
            return
