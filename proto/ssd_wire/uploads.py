"""What the two sides of an upload say around its body, as frozen records that compare by value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DIGEST_BYTES = 32


def split_digests(joined: bytes) -> tuple[bytes, ...]:
    """SHA-256 digests that stand one behind the other, as a tuple of 32 bytes each."""
    return tuple(joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


class UploadKind(StrEnum):
    """What the body of an upload is."""

    UPDATE = "update"
    """One client's encoded update."""
    FOLD = "fold"
    """A worker's exact sum over several clients."""
    MASKED = "masked"
    """A worker's sum under its masks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightedClient:
    """One of the clients whose updates are in an upload."""

    client: str
    weight: int
    """0 in a masked upload, where the weight is inside the masked vector."""
    training_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """What an upload says of itself before its body. Equal envelopes belong to the same upload."""

    run_id: str
    round: int
    attempt: int
    base_digest: str
    spec_digest: str
    task_digest: str
    kind: UploadKind
    clients: tuple[WeightedClient, ...]
    body_size: int
    """Bytes."""
    chunk_digests: tuple[bytes, ...]
    """SHA-256 of every chunk of 1 MiB of the body, 32 bytes each."""
    secure_round: bytes = b""
    """Masked: the round id of the keys its masks were made with, 16 bytes."""
    sharers_digest: bytes = b""
    """Masked: digest of the set of sharers its masks were made for, 32 bytes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its clients, as often as they are named."""
        return tuple(each.client for each in self.clients)

    @property
    def weight(self) -> int:
        """Total weight."""
        return sum(each.weight for each in self.clients)

    @property
    def fold(self) -> bool:
        """Whether the body is an exact sum in the clear."""
        return self.kind is UploadKind.FOLD

    @property
    def masked(self) -> bool:
        """Whether the body is under masks."""
        return self.kind is UploadKind.MASKED


@dataclass(frozen=True, kw_only=True, slots=True)
class Continue:
    """Send the body from this byte on."""

    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Wait: for `Continue` before the body, for `Go` in the middle of it."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Go:
    """Send on."""


class UploadFate(StrEnum):
    """What became of an upload."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DISCARDED = "discarded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The coordinator's last word on an upload."""

    fate: UploadFate
    reason: str = ""
    """A stable snake_case word; empty when accepted."""
    detail: str = ""


UploadReply = Continue | Hold | Go | Verdict
"""Every message down of an upload."""
