"""Keeping the process's memory close to what it uses.

gRPC's threads allocate and free message buffers of many sizes. glibc gives every thread an arena of its own and
returns little of what was freed there, so after a burst of uploads hundreds of megabytes stay resident that
nobody uses. Other C libraries have other habits and are left alone.
"""

from __future__ import annotations

import ctypes
from typing import Any

_M_ARENA_MAX = -8
_ARENAS = 2


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None


_mallopt, _malloc_trim = _function("mallopt"), _function("malloc_trim")


def share_arenas() -> None:
    """Let all threads share two arenas; call it before they are started."""
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Return freed memory to the system; takes milliseconds at most, from any thread."""
    if _malloc_trim is not None:
        _malloc_trim(0)
