"""Room for uploads in flight as a port: bytes wait here until the whole of an update has arrived."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class StagedBody(Protocol):
    """The body of an upload on its way in: RAM first, then disk."""

    size: int
    received: int

    def append(self, data: bytes | memoryview) -> None:
        """Behaviour: adds bytes at `received`; over `size` raises ValueError."""
        ...

    def view(self) -> NDArray[np.uint8]:
        """The received bytes as a read-only [received] uint8 array (memory or memory map)."""
        ...

    def discard(self) -> None:
        """Behaviour: gives its budget back; idempotent."""
        ...


class Staging(Protocol):
    """Budgeted room for uploads in flight."""

    def open(self, size: int, *, in_memory: bool = False) -> StagedBody | None:
        """A body with its whole room reserved (RAM budget, else disk budget), or None: no room now, hold.

        With `in_memory` a body that the RAM budget can hold goes to RAM or nowhere.
        """
        ...

    def on_room(self, callback: Callable[[], None]) -> None:
        """Called (from any thread) whenever room was given back."""
        ...

    def fits(self, size: int) -> bool:
        """Whether a body of this size could ever be opened, however empty the budgets are."""
        ...

    ram_used: int
    disk_used: int
