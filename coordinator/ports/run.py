"""The run as the coordinator's parts see it: its present state, and the one way to change it."""

from __future__ import annotations

from typing import Protocol

from coordinator.core.events import Event
from coordinator.core.state import RunState


class Run(Protocol):
    """The present state of the run, and the way to let an event happen.

    Behaviour:
    - `state` is frozen; after an event there is another one.
    - `apply` returns when every effect of the event is done, in order: persist, then send. It is called only from
      commands of the mailbox, so that no two events overlap.
    - `post` queues an event for the next turn of the loop and returns at once. It may be called from any task of the loop.
    """

    @property
    def state(self) -> RunState:
        """The run's present state."""
        ...

    async def apply(self, event: Event) -> None:
        """Let an event happen now, between two commands of the mailbox."""
        ...

    def post(self, event: Event) -> None:
        """Queue an event."""
        ...
