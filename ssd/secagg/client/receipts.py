"""What a participant keeps of every attempt it uploaded a masked vector for: its side of the story, for good."""

from __future__ import annotations

from dataclasses import dataclass

from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.layout import Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """An attempt that a masked vector was made for."""

    round_id: bytes
    """16 bytes."""
    base_digest: bytes
    """32 bytes: model digest of the version that was trained from."""
    round: int
    attempt: int
    level: Level
    roster: tuple[str, ...]
    """Everybody whose keys the masks are made of, sorted."""
    threshold: int
    """Shares that rebuild a secret: so many must have revealed, if it was opened."""
    corrupt: int
    """Of the roster, assumed corrupt."""
    signed: tuple[str, ...] = ()
    """The survivor set that was signed (level `active`) or answered with shares; empty: none came."""
    survivors_digest: bytes = b""
    """32 bytes: of that message; empty: none came."""

    @classmethod
    def of(cls, layout: Layout) -> Receipt:
        """Of an attempt whose masks are about to be made."""
        offer = layout.offer
        return cls(
            round_id=offer.round_id,
            base_digest=offer.model_digest,
            round=offer.round,
            attempt=offer.attempt,
            level=offer.level,
            roster=tuple(layout.adverts),
            threshold=layout.threshold,
            corrupt=layout.corrupt,
        )
