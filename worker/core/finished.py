"""The record of a client's finished training, from the training process to its upload."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_wire.messages import UpdateKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A client's finished training: the update lies in a file, its description here."""

    key: UpdateKey
    weight: int
    seconds: float
    body_size: int
    """Bytes."""
    chunk_digests: bytes
    """SHA-256 of every 1 MiB chunk of the body, concatenated."""
    state_digest: str = ""
    """Hex SHA-256 of the pending client state's file; empty if the method keeps no state."""
