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
    """Bytes; of the fold's body where the update is in one."""
    chunk_digests: bytes
    """SHA-256 of every 1 MiB chunk of the body, concatenated."""
    state_digest: str = ""
    """Hex SHA-256 of the pending client state's file; empty if the method keeps no state."""
    fold: str = ""
    """Name of the fold that the training process added the update to; empty: it lies in a file of its own."""
    fold_clients: int = 1
    """How many clients' updates are in that fold: it counts with all of them or not at all."""
