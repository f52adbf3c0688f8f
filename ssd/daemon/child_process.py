"""How a program of ours is started, by all of them: the one place that says which code runs in a child.

Neither the working directory nor the environment decides it (`ssd.daemon.isolated` says how). What the operating system
itself looks at, such as `PATH` and `LD_LIBRARY_PATH`, stays the operator's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

LAUNCHER = Path(__file__).with_name("isolated.py")
_BLAS = "OPENBLAS_NUM_THREADS"
_HARMLESS = frozenset({"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONFAULTHANDLER"})

_chosen: set[str] = set()
"""Variables that this process set for itself alone."""


def one_blas_thread() -> None:
    """Have numpy compute with one thread in this process, unless the operator says another number.

    OpenBLAS otherwise starts a thread for each core, and after every product of two vectors they wait busily: a quarter
    of a coordinator's processor time. A daemon's numpy work is additions and roundings, which have no use for them.
    It has to be called before numpy is imported. Children do not inherit it.
    """
    if _BLAS not in os.environ:
        os.environ[_BLAS] = "1"
        _chosen.add(_BLAS)


def python(*arguments: str) -> list[str]:
    """The command line of a child.

    Args:
        arguments: `-m MODULE …` or `-c CODE …`.
    """
    # Python ignores its own variables in a child, so what they say of harmless things is said again.
    flags = ["-B"] if sys.flags.dont_write_bytecode else []
    flags += ["-X", "utf8"] if sys.flags.utf8_mode else []
    return [sys.executable, "-I", "-S", *flags, str(LAUNCHER), *arguments]


def environment(
    own: Mapping[str, str] | None = None, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A child's environment: this process's (or `inherited`) without what tells a Python which code to run.

    The child itself would not look at those variables. Programs that its libraries start would.

    Args:
        own: variables that are added, or replace others.
        inherited: what to begin with; None: this process's environment.
    """
    kept = {
        name: value
        for name, value in (os.environ if inherited is None else inherited).items()
        if name not in _chosen and (not name.startswith("PYTHON") or name in _HARMLESS)
    }
    return {**kept, "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", **(own or {})}
