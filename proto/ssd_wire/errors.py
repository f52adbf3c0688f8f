"""What both daemons refuse for the same reason: a message that says less, or something else, than its contract asks."""

from __future__ import annotations


class Malformed(Exception):
    """A message from the other side is not what it has to be. Each daemon makes its own fault of it."""

    def __init__(self, detail: str, *, reason: str = "malformed_message") -> None:
        """Describe what is wrong.

        Args:
            detail: one sentence that a person can act on.
            reason: the wire's word for it (docs/protocol.md), which the coordinator answers with.
        """
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
