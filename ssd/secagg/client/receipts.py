"""What a participant keeps of every attempt it uploaded a masked vector for: its side of the story, for good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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

    @property
    def returning(self) -> int:
        """How many of the roster a later attempt over the same base must have, so that this one cannot have been opened.

        Had it been, a threshold of its roster would have revealed, and the honest ones of those take part in no other
        attempt over the base. Whoever else there is of the roster is fewer than this.
        """
        return len(self.roster) - self.threshold + self.corrupt + 1

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


def to_json(worker: str, receipts: Iterable[Receipt]) -> dict[str, Any]:
    """What an auditor gets of a worker."""
    return {
        "worker": worker,
        "receipts": [
            {
                "round_id": each.round_id.hex(),
                "model_digest": each.base_digest.hex(),
                "round": each.round,
                "attempt": each.attempt,
                "level": each.level.value,
                "roster": list(each.roster),
                "signed": list(each.signed),
            }
            for each in receipts
        ],
    }
