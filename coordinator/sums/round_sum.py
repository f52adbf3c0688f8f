"""The port of a round's sum. Later implementations may add partial sums of other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.core import effects
from coordinator.core.state import RunState
from coordinator.ports.blobs import BlobReader
from coordinator.workers.sessions import Session
from ssd.updates.fold import FoldPlan, OpenedFold
from ssd_wire.uploads import Envelope


@dataclass(frozen=True, kw_only=True, slots=True)
class SumView:
    """How far the sum of the present attempt is, for people."""

    level: str
    """Of secure aggregation: passive or active."""
    phase: str
    """Empty: no attempt is under way."""
    participants: int
    uploaded: int
    survivors: int
    awaited: tuple[str, ...]
    """Workers the phase waits for."""


class RoundSum(Protocol):
    """The sum of the present attempt, in the clear or under masks.

    Behaviour:
    - One attempt at a time: `begin` forgets whatever was there before.
    - `check` refuses an upload before a byte of its body is taken; it changes nothing.
    - `add` is called with verified bodies only, one at a time; the order of calls changes no bit of the result.
    - `close` is asked for when the core emits `OpenSum`; a sum that opens at once needs nothing of it.
    - `open` gives the reduced values of exactly the journaled set and uses the sum up; the journal has the set before.
    - After `open` come, for a commit, `committing` (what has to be durable before the version is) and `committed`; or
      `abandoned` at any time before.
    - `settle` is called after every event; `wakeup` says when time alone would change something.
    - All calls come from the loop of the run; whatever takes long is done in threads.
    """

    @property
    def level(self) -> str:
        """`off`, or the level of secure aggregation."""
        ...

    @property
    def wakeup(self) -> float | None:
        """Monotonic seconds at which `settle` could do something by time alone; None: never."""
        ...

    @property
    def view(self) -> SumView | None:
        """How far the masks are; None: the run has none."""
        ...

    @property
    def waiting_for(self) -> str:
        """One sentence for people about participants that are awaited; empty if none are."""
        ...

    def upload_nbytes(self, plan: FoldPlan) -> int | None:
        """The exact length of an upload's body in a round with this plan; None: the body's own head says it."""
        ...

    def max_upload_nbytes(self, plan: FoldPlan) -> int:
        """The longest body an upload can have in a round with this plan."""
        ...

    async def recover(self, state: RunState) -> None:
        """Go on, after a start, with what a crash left unfinished."""
        ...

    def begin(self, opening: effects.OpenAttempt, base_digest: str, task_digest: str) -> None:
        """An attempt is durable: its sum starts at zero."""
        ...

    async def settle(self, state: RunState) -> None:
        """Look at hosts and time after an event, and do what follows."""
        ...

    def check(self, session: Session, envelope: Envelope) -> None:
        """Refuse an upload that cannot be added now.

        Raises:
            ClientFault: why not.
        """
        ...

    async def add(self, worker: str, envelope: Envelope, body: NDArray[np.uint8]) -> None:
        """Add a verified upload."""
        ...

    async def close(self, closing: effects.OpenSum) -> None:
        """The uploads are over: ask for what opens the sum."""
        ...

    async def open(self) -> OpenedFold:
        """The reduced values of the journaled set."""
        ...

    async def committing(self, model_digest: str) -> None:
        """The sum is about to be in this version; what must be on disk before the version is, is on disk after this."""
        ...

    async def committed(self) -> None:
        """The sum is in a durable version."""
        ...

    async def abandoned(self, reason: str) -> None:
        """The attempt came to nothing."""
        ...

    def honest_opened(self, state: RunState) -> int | None:
        """Participants not assumed corrupt of a sum that was opened and is in no version yet; None: there is none."""
        ...

    def open_blob(self, digest: str, worker: str) -> BlobReader | None:
        """A large message of the sum's protocol that this worker was told to fetch."""
        ...

    async def training_progressed(
        self, session: Session, round_number: int, attempt: int, client: str, step: int, steps: int
    ) -> None:
        """A worker says how far the training of a client is."""
        ...

    async def receive(self, session: Session, round_id: bytes, content: bytes) -> None:
        """A worker's message of the sum's protocol.

        Raises:
            ClientFault: the run's sums have no messages, or this is none.
        """
        ...

    @property
    def awaits_training(self) -> bool:
        """Whether `training_progressed` changes anything now."""
        ...
