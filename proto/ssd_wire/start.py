"""The console scripts: each begins anew as an isolated program, see `ssd.daemon.isolated`.

They stand in a module whose name is nobody else's. `worker.py`, `coordinator.py` and `ssd.py` are common names, and a
`PYTHONPATH` that ends or begins with a colon has Python search the working directory first, also for a script.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOTS = (os.path.dirname(_HERE), os.path.dirname(os.path.dirname(_HERE)))
"""Where `ssd` is installed beside this package, and where it is in a checkout."""


def worker() -> None:
    """`ssd-worker`."""
    _begin("worker")


def coordinator() -> None:
    """`ssd-coordinator`."""
    _begin("coordinator")


def ssd() -> None:
    """`ssd`."""
    _begin("ssd")


def _begin(program: str) -> None:
    """Go on as `program`, in this very process: signals, exit codes and open files are the program's."""
    launchers = [os.path.join(root, "ssd", "daemon", "isolated.py") for root in _ROOTS]
    launcher = next(path for path in launchers if os.path.exists(path))
    flags = ["-B"] if sys.flags.dont_write_bytecode else []
    flags += ["-X", "utf8"] if sys.flags.utf8_mode else []
    command = [sys.executable, "-I", "-S", *flags, launcher, "-m", program, *sys.argv[1:]]
    os.execv(sys.executable, command)  # noqa: S606  # an argument list of our own
