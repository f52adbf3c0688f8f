"""How many calls of a kind each worker has under way, whichever of its sessions they began in."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from coordinator.errors import ClientFault, Reason


class CallShare:
    """Counts by worker: a call that has not ended counts after its session did, so that attending again frees nothing.

    Args:
        most: calls a worker has under way at once.
        kind: what they are called, in the plural.
    """

    def __init__(self, most: int, kind: str) -> None:
        self._most = most
        self._kind = kind
        self._under_way: Counter[str] = Counter()

    @contextlib.contextmanager
    def one_more(self, worker: str) -> Iterator[None]:
        """A call of the worker is under way inside.

        Raises:
            ClientFault: reason no_room.
        """
        if self._under_way[worker] >= self._most:
            raise ClientFault(Reason.NO_ROOM, f"{self._most} {self._kind} of this worker are under way")
        self._under_way[worker] += 1
        try:
            yield
        finally:
            self._under_way[worker] -= 1
            if not self._under_way[worker]:
                del self._under_way[worker]
