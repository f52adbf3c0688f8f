"""Uploads on their way in: which are let in, what has arrived of each, which may go on where they broke off."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from coordinator.errors import ClientFault, Reason
from coordinator.ports.staging import StagedBody, Staging
from ssd.digest import CHUNK_BYTES
from ssd.updates.fold import FoldPlan, UpdateRefused, check_fold, check_update
from ssd_wire.uploads import Envelope


@dataclass(slots=True, eq=False)
class Upload:
    """One upload: envelope and what has arrived of the body. Every chunk was checked when it became whole."""

    envelope: Envelope
    worker: str
    body: StagedBody
    busy: bool = False
    """A call is writing to it, or it is being judged."""
    interruption: ClientFault | None = None
    """Why the call that is writing to it shall stop."""
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    _chunk: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Hash of the chunk that is still incomplete."""

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived."""
        return self.body.received == self.envelope.body_size

    def take(self, offset: int, data: bytes | memoryview) -> None:
        """Append a piece of the body.

        Raises:
            ClientFault: bad_offset, wrong_length (past the declared end, or across a chunk boundary) or
                corrupt_chunk; the whole chunks before it stay and can be continued.
        """
        received = self.body.received
        if offset != received:
            raise ClientFault(Reason.BAD_OFFSET, f"byte {received} comes next, not {offset}")
        index, within = divmod(received, CHUNK_BYTES)
        end = min(self.envelope.body_size, (index + 1) * CHUNK_BYTES)
        if not data or received + len(data) > end:
            raise ClientFault(
                Reason.WRONG_LENGTH,
                f"a piece at {received} holds 1 to {end - received} bytes, not {len(data)}",
            )
        hasher = self._chunk.copy() if within else hashlib.sha256()
        hasher.update(data)
        if received + len(data) == end and hasher.digest() != self.envelope.chunk_digests[index]:
            # Which piece of the chunk is the bad one nobody can tell: all of it comes again.
            self.body.received = index * CHUNK_BYTES
            raise ClientFault(Reason.CORRUPT_CHUNK, f"chunk {index} does not match its digest")
        self.body.append(data)
        self._chunk = hasher

    def interrupt(self, why: ClientFault) -> None:
        """Ask the call that is writing to it to stop; one that has the whole body goes on to its verdict."""
        if self.busy and self.interruption is None:
            self.interruption = why
            self.interrupted.set()

    def check(self, plan: FoldPlan) -> None:
        """Check the whole content; runs in a thread, reads the body once.

        Raises:
            ClientFault: with the content's fault as reason.
        """
        envelope = self.envelope
        if envelope.masked:
            return  # Nobody can see into it; its chunks fit their digests, and the opened sum is checked.
        try:
            if envelope.fold:
                check_fold(plan, self.body.view(), envelope.weight, len(envelope.clients))
            else:
                check_update(plan, self.body.view(), envelope.weight)
        except UpdateRefused as refusal:
            reasons = {"malformed": Reason.MALFORMED_UPDATE}
            reason = reasons.get(refusal.reason.value) or Reason(refusal.reason.value)
            raise ClientFault(reason, str(refusal)) from refusal


class UploadsInFlight:
    """Uploads by (worker, envelope), so that a broken one goes on where it stopped."""

    def __init__(self, staging: Staging, bytes_per_worker: int | None = None) -> None:
        self._staging = staging
        self._bytes_per_worker = bytes_per_worker
        self._uploads: dict[tuple[str, Envelope], Upload] = {}
        self._held: set[asyncio.Event] = set()
        """Of the calls that wait for room."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.changes = 0
        """Changes whenever a claim that found no room may find some."""
        staging.on_room(self._room_came)

    async def room_changed(self, since: int, unless: asyncio.Event, seconds: float) -> None:
        """Wait until `changes` is not `since`, `unless` is set, or so much time has passed."""
        self._loop = asyncio.get_running_loop()
        if self.changes != since:
            return
        changed = asyncio.Event()
        self._held.add(changed)
        waits = [asyncio.ensure_future(each.wait()) for each in (changed, unless)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._held.discard(changed)
            for wait in waits:
                wait.cancel()

    def _room_came(self) -> None:
        """Called from any thread, whenever a body gives its room back."""
        self.changes += 1
        if self._held and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Let every held upload look again: room came, its rival let go, or the attempt or the daemon ends."""
        self.changes += 1
        for event in self._held:
            event.set()

    def claim(self, worker: str, envelope: Envelope, *, in_memory: bool = False) -> Upload | None:
        """The upload of this envelope, resumed or new; None: no room now, or an older call must let go of it first.

        With `in_memory` a body that would fit in memory does not go to the disk, and nobody's progress is given up for it.
        """
        key = (worker, envelope)
        upload = self._uploads.get(key)
        if upload is None:
            if self._has_rival(worker, envelope):
                return None
            if not self._within_share(worker, envelope.body_size):
                return None
            body = self._staging.open(envelope.body_size, in_memory=in_memory)
            if body is None and (in_memory or not self._evict_idle()):
                return None
            body = body or self._staging.open(envelope.body_size)
            if body is None:
                return None
            upload = self._uploads[key] = Upload(envelope=envelope, worker=worker, body=body)
        if upload.busy:
            # A worker whose connection died starts again before that is known here.
            upload.interrupt(ClientFault(Reason.FENCED, "a newer call sends this upload"))
            return None
        upload.busy = True
        upload.interruption = None
        upload.interrupted = asyncio.Event()
        return upload

    def _has_rival(self, worker: str, envelope: Envelope) -> bool:
        """Whether another upload of the worker for one of these clients is still being sent; it is told to end.

        A client has one upload at a time: otherwise one worker could take all the room there is.
        """
        names = set(envelope.names)
        rivals = [
            each
            for each in self._uploads.values()
            if each.worker == worker and not names.isdisjoint(each.envelope.names)
        ]
        for rival in rivals:
            if rival.busy:
                rival.interrupt(ClientFault(Reason.FENCED, "a newer upload of the same client"))
            else:
                self.finish(rival)
        return any(rival.busy for rival in rivals)

    def _within_share(self, worker: str, size: int) -> bool:
        """Whether the worker may take that much more; what it broke off goes first. One upload always may."""
        if self._bytes_per_worker is None:
            return True
        mine = [each for each in self._uploads.values() if each.worker == worker]
        held = sum(each.envelope.body_size for each in mine)
        for each in mine:
            if held + size > self._bytes_per_worker and not each.busy:
                held -= each.envelope.body_size
                self.finish(each)
        return held == 0 or held + size <= self._bytes_per_worker

    def release(self, upload: Upload) -> None:
        """The call broke off; what arrived is kept for its continuation, unless the attempt has ended or it stalled."""
        upload.busy = False
        self.wake()
        if upload.interruption is not None and upload.interruption.reason in (
            Reason.TOO_LATE,
            Reason.STALLED,
        ):
            self.finish(upload)

    def finish(self, upload: Upload) -> None:
        """The upload has its verdict; its room is given back."""
        self._uploads.pop((upload.worker, upload.envelope), None)
        upload.busy = False
        upload.body.discard()
        self.wake()

    def forget(self) -> None:
        """An attempt ended: what is not whole by now will not be wanted."""
        for upload in list(self._uploads.values()):
            if upload.busy:
                upload.interrupt(
                    ClientFault(Reason.TOO_LATE, "the attempt ended while the body was on its way")
                )
            else:
                self.finish(upload)
        self.wake()

    def _evict_idle(self) -> bool:
        """Give up the oldest broken-off upload to make room; its worker starts that one again."""
        for upload in self._uploads.values():
            if not upload.busy:
                self.finish(upload)
                return True
        return False
