"""Messages of secure aggregation on their way down: once a session, and large ones as blobs that only live in memory."""

from __future__ import annotations

from coordinator.core.secure_aggregation.attempt import SecureAttempt
from coordinator.ports.blobs import BlobReader
from coordinator.store.memory_blobs import MemoryBlobs
from coordinator.workers.sessions import Session, SessionTable
from ssd.digest import CHUNK_BYTES
from ssd_wire.messages import BlobRef, SecureMessage

MAX_INLINE_BYTES = 256 << 10
"""Larger messages would hold up the control stream."""


class SecureDelivery:
    """What was sent to whom in one attempt."""

    def __init__(self, round_id: bytes, sessions: SessionTable) -> None:
        self.round_id = round_id
        self._sessions = sessions
        self._sent: set[tuple[str, str]] = set()
        """(session token, message name)."""
        self._blobs = MemoryBlobs()
        self._readers: dict[str, set[str]] = {}
        """Blob digest -> workers that may read it."""

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
        writer = self._blobs.create()
        for start in range(0, len(content), CHUNK_BYTES):
            writer.write(content[start : start + CHUNK_BYTES])
        blob: BlobRef = writer.finish()
        self._readers.setdefault(blob.digest, set()).add(session.worker)
        session.send(SecureMessage(round_id=self.round_id, blob=blob))

    def open(self, digest: str, worker: str) -> BlobReader | None:
        """A blob that this worker was told to fetch; None if there is none."""
        return self._blobs.open(digest) if worker in self._readers.get(digest, ()) else None
