"""Who has a part in the present phase of an attempt: who was heard, who is not waited for, who broke the protocol."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from ssd.secagg.protocol.errors import AbortReason, Rejected
from ssd.secagg.protocol.messages import Message


class Phase(StrEnum):
    """What is waited for."""

    OFFERED = "offered"
    """Adverts."""
    ROSTERED = "rostered"
    """Share bundles."""
    UPLOADING = "uploading"
    """Masked uploads."""
    SIGNING = "signing"
    """Signatures of the survivor set; level `active` only."""
    REVEALING = "revealing"
    """Shares."""
    READY = "ready"
    """Nothing: the sum can be opened."""
    ABORTED = "aborted"


_WAITS_FOR_NOBODY = frozenset({Phase.READY, Phase.ABORTED})


class Members:
    """The phase of an attempt and the participants in it.

    A participant that was expelled has no part in any later phase. One that went away keeps its part and is only not
    waited for, until it is heard again.

    Args:
        invited: who may advertise.
    """

    def __init__(self, invited: Iterable[str]) -> None:
        self.phase = Phase.OFFERED
        self.expelled: set[str] = set()
        self._entitled = frozenset(invited)
        self._answered: set[str] = set()
        self._away: set[str] = set()

    def enter(self, phase: Phase, entitled: Iterable[str]) -> None:
        """Begin a phase in which `entitled` have a part; nobody was heard in it yet."""
        self.phase, self._entitled, self._answered = phase, frozenset(entitled), set()

    @property
    def present(self) -> frozenset[str]:
        """Who has a part in this phase."""
        return self._entitled - self.expelled

    @property
    def answered(self) -> frozenset[str]:
        """Whose message of this phase was taken and who was not expelled since."""
        return frozenset(self._answered) - self.expelled

    def missing(self) -> frozenset[str]:
        """Who this phase still waits for: neither heard nor away."""
        if self.phase in _WAITS_FOR_NOBODY:
            return frozenset()
        return self.present - self._answered - self._away

    def note_answer(self, sender: str) -> None:
        """Note that a message of this phase was taken."""
        self._answered.add(sender)

    def stop_waiting_for(self, sender: str) -> None:
        """Do not wait for a participant that went away."""
        self._away.add(sender)

    def wait_again_for(self, sender: str) -> None:
        """Wait again for a participant that is back."""
        self._away.discard(sender)

    def check_sender(self, phase: Phase, sender: str) -> None:
        """Refuse who may not speak now.

        Raises:
            Rejected: the phase is another one, or the sender was expelled or has no part in the phase.
        """
        self.reject_unless(self.phase is phase, AbortReason.UNEXPECTED_MESSAGE, f"the phase is {self.phase}")
        self.reject_unless(sender not in self.expelled, AbortReason.EXPELLED, "it broke the protocol before")
        self.reject_unless(sender in self.present, AbortReason.UNKNOWN_SENDER, "it has no part in this phase")

    def was_taken(
        self, phase: Phase, sender: str, name: str, before: Message | None, message: Message
    ) -> bool:
        """Whether the very same message was taken before.

        Args:
            phase: the phase that the message belongs to.
            sender: who sent it, as the connection says.
            name: who sent it, as the message says.
            before: what the sender said in this phase, if anything.
            message: what it says now.

        Raises:
            Rejected: it is not this sender's turn, it speaks for somebody else, or it said something else before.
        """
        self.check_sender(phase, sender)
        self.reject_unless(name == sender, AbortReason.WRONG_NAME, "it names another participant", sender)
        self.reject_unless(
            before in (None, message),
            AbortReason.CONFLICTING_MESSAGE,
            "it said something else before",
            sender,
        )
        self.wait_again_for(sender)
        return before is not None

    def reject_unless(
        self, holds: bool, reason: AbortReason, detail: str, expelled: str | None = None
    ) -> None:
        """Reject a message unless a condition holds, and expel who is named, as it broke the protocol.

        Raises:
            Rejected: the condition does not hold.
        """
        if holds:
            return
        if expelled is not None:
            self.expelled.add(expelled)
        raise Rejected(reason, detail, expelled=expelled is not None)
