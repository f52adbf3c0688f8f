"""Run a daemon that dies at a chosen instruction: `faulty.py MODULE:NAME before|after N DAEMON ARGS...`.

The process ends as by `kill -9` (no handler, no flush) right before the N-th call of the named function, or right
after it returned. `swap:MODULE:NAME=MODULE:NAME` instead of a death replaces one object by another (mutation tests).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
from pathlib import Path
from typing import Any


def _resolve(dotted: str) -> tuple[Any, str]:
    module, _, path = dotted.partition(":")
    holder: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    return holder, name


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(dotted: str, when: str, count: int) -> None:
    holder, name = _resolve(dotted)
    original = inspect.getattr_static(holder, name)
    function = getattr(holder, name)
    calls = 0

    def due() -> bool:
        nonlocal calls
        calls += 1
        return calls == count

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def fatal_async(*args: Any, **kwargs: Any) -> Any:
            now = due()
            if now and when == "before":
                _die()
            result = await original(*args, **kwargs)
            if now:
                _die()
            return result

        setattr(holder, name, fatal_async)
        return

    @functools.wraps(function)
    def fatal(*args: Any, **kwargs: Any) -> Any:
        now = due()
        if now and when == "before":
            _die()
        result = original(*args, **kwargs)
        if now:
            _die()
        return result

    setattr(holder, name, fatal)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if sys.argv[1].startswith("swap:"):
        target, _, replacement = sys.argv[1].removeprefix("swap:").partition("=")
        holder, name = _resolve(target)
        source, source_name = _resolve(replacement)
        setattr(holder, name, getattr(source, source_name))
        daemon, arguments = sys.argv[2], sys.argv[3:]
    else:
        die_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        daemon, arguments = sys.argv[4], sys.argv[5:]
    sys.argv = [daemon, *arguments]
    importlib.import_module(f"{daemon}.cli.main").main(arguments)


if __name__ == "__main__":
    main()
