"""One attempt at a masked sum: its machine, its messages on the way, its sum, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.secure_aggregation.attempt import SecureAttempt
from coordinator.secure_aggregation.masked_vector import MaskedVector
from coordinator.secure_aggregation.outbox import MaskedOutbox
from coordinator.sums.round_sum import SumView
from ssd.secagg.protocol.messages import Message, encode
from ssd.secagg.server.aggregator import Aggregator
from ssd.updates.fold import OpenedFold


@dataclass(kw_only=True, slots=True)
class PresentAttempt:
    """An attempt under way."""

    round: int
    number: int
    round_id: bytes
    machine: SecureAttempt
    delivery: MaskedOutbox
    sum: MaskedVector
    accepted: tuple[str, ...] = ()
    opened: OpenedFold | None = None
    opened_digest: bytes = b""
    """SHA-256 of the opened vector; empty until the sum is opened."""
    honest: int | None = None
    """Participants in the sum that are not assumed corrupt; None before it is opened."""
    phase: str = ""
    since: float = 0.0
    """Monotonic seconds at which the phase began."""
    given_up: bool = False
    """Counted already, with the reason of the protocol."""

    @property
    def aggregator(self) -> Aggregator:
        """The protocol's server side, which exists from the offer on."""
        assert self.machine.aggregator is not None
        return self.machine.aggregator

    def tell(self, message: Message) -> None:
        """Send one message to every participant that is attached."""
        self.delivery.broadcast(self.machine.participants, encode(message))

    @property
    def waiting_for(self) -> str:
        """One sentence for people; empty if nothing is awaited of a participant."""
        phase, names = self.machine.awaited()
        if not names or phase == "uploading":
            return ""
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        return f"secure aggregation, {phase}: waiting for {shown}"


def view_of(present: PresentAttempt | None, level: str) -> SumView:
    """How far the attempt under way is, for people."""
    if present is None:
        return SumView(level=level, phase="", participants=0, uploaded=0, survivors=0, awaited=())
    machine = present.machine
    phase, names = machine.awaited()
    return SumView(
        level=level,
        phase=phase,
        participants=len(machine.participants),
        uploaded=len(machine.uploaders),
        survivors=0 if machine.aggregator is None else len(machine.survivors),
        awaited=tuple(sorted(names)),
    )
