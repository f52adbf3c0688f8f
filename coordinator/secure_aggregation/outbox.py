"""Messages of secure aggregation on their way down: once a session, and large ones as blobs that only live in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from coordinator.core.secure_aggregation.attempt import SecureAttempt
from coordinator.ports.blobs import BlobReader
from coordinator.workers.sessions import Session, SessionTable
from ssd.digest import blob_digest, chunk_digests
from ssd_wire.messages import BlobRef, SecureMessage

MAX_INLINE_BYTES = 256 << 10
"""Larger messages would hold up the control stream."""


class MessageReader:
    """`coordinator.ports.blobs.BlobReader` over a message in memory. It has no state: any number may read from it."""

    def __init__(self, content: bytes) -> None:
        self.chunk_digests = chunk_digests(content)
        self.info = BlobRef(digest=blob_digest(len(content), self.chunk_digests), size=len(content))
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        """See `coordinator.ports.blobs.BlobReader`."""
        if offset < 0 or size < 0 or offset > self.info.size:
            raise ValueError(f"bytes {offset}+{size} of a blob of {self.info.size}")
        return self._content[offset : offset + size]

    def map(self) -> NDArray[np.uint8]:
        """See `coordinator.ports.blobs.BlobReader`. The array is read-only."""
        return np.frombuffer(self._content, np.uint8)

    def close(self) -> None:
        """See `coordinator.ports.blobs.BlobReader`. Nothing is held open."""


class MaskedOutbox:
    """What was sent to whom in one attempt."""

    def __init__(self, round_id: bytes, sessions: SessionTable) -> None:
        self.round_id = round_id
        self._sessions = sessions
        self._sent: set[tuple[str, str]] = set()
        """(session token, message name)."""
        self._large: dict[str, tuple[MessageReader, set[str]]] = {}
        """Blob digest -> message and the workers that may read it; what goes to many is kept once."""

    def deliver(self, attempt: SecureAttempt) -> None:
        """Send what is due and was not sent in this session yet."""
        for session in self._sessions:
            for name in attempt.due(session.worker):
                if (session.token, name) not in self._sent:
                    self._sent.add((session.token, name))
                    self.send(session, attempt.content(name, session.worker))

    def send(self, session: Session, content: bytes) -> None:
        """Send one encoded message."""
        if len(content) <= MAX_INLINE_BYTES:
            session.send(SecureMessage(round_id=self.round_id, content=content))
            return
        message = MessageReader(content)
        _, readers = self._large.setdefault(message.info.digest, (message, set()))
        readers.add(session.worker)
        session.send(SecureMessage(round_id=self.round_id, blob=message.info))

    def broadcast(self, workers: Iterable[str], content: bytes) -> None:
        """Send one message to those of the workers that are attached."""
        for worker in workers:
            session = self._sessions.worker(worker)
            if session is not None:
                self.send(session, content)

    def open(self, digest: str, worker: str) -> BlobReader | None:
        """A blob that this worker was told to fetch; None if there is none."""
        message, readers = self._large.get(digest, (None, frozenset()))
        return message if worker in readers else None
