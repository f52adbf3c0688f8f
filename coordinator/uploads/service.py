"""An update's way from its envelope to its verdict, in one pass: let in, given room, taken in, verified, judged."""

from __future__ import annotations

import asyncio
from typing import Protocol

from coordinator.errors import ClientFault, Reason
from coordinator.ports.clock import Clock
from coordinator.runtime.mailbox import Mailbox
from coordinator.runtime.threads import finished
from coordinator.telemetry.round_cost import RoundCost
from coordinator.uploads.addressing import EnvelopeChecks
from coordinator.uploads.in_flight import Upload, UploadsInFlight
from coordinator.uploads.verification import UploadVerification
from coordinator.workers.sessions import Session
from ssd_wire.uploads import Envelope, Verdict

LOOK_AGAIN_SECONDS = 5.0
"""How often a held upload looks for room by itself: nobody says so when the disk's other users make room."""

MEMORY_PATIENCE_SECONDS = 2.0
"""How long an upload waits for memory to become free before it goes to the disk: several times what a body takes on a
fast network, and little beside what it takes on a slow one, whose uploads may then keep the memory."""


class Sender(Protocol):
    """The other end of an upload call.

    Behaviour:
    - `hold` and `proceed` send the sender one reply.
    - `next_chunk` waits for the next piece of the body; None is the end of the stream. It raises the fault that ends the
      call when the session, the upload's claim or the sender's patience is over.
    """

    async def hold(self) -> None:
        """No room yet."""
        ...

    async def proceed(self, offset: int) -> None:
        """The body goes on at this byte."""
        ...

    async def next_chunk(self, upload: Upload) -> tuple[int, bytes | memoryview] | None:
        """Offset and bytes of the next piece."""
        ...


class Uploads:
    """Takes uploads in, one call each; every one that is refused or arrives whole gets exactly one verdict.

    Args:
        checks: of envelopes.
        in_flight: the uploads in flight.
        verification: of complete bodies.
        mailbox: says whether the daemon stops.
        cost: counts the bytes.
        clock: when something arrived from a worker.
    """

    def __init__(
        self,
        *,
        checks: EnvelopeChecks,
        in_flight: UploadsInFlight,
        verification: UploadVerification,
        mailbox: Mailbox,
        cost: RoundCost,
        clock: Clock,
    ) -> None:
        self._checks = checks
        self._in_flight = in_flight
        self._verification = verification
        self._mailbox = mailbox
        self._cost = cost
        self._clock = clock

    async def receive(self, session: Session, envelope: Envelope, sender: Sender) -> Verdict:
        """Take one upload in and give its verdict.

        Raises:
            ClientFault: it was not taken; `reject` says what that amounts to.
            StorageFailed: the medium fails.
        """
        self.let_in(session, envelope)
        upload = await self._room(session, envelope, sender)
        return await self._take_in(session, upload, sender)

    def let_in(self, session: Session, envelope: Envelope) -> None:
        """Check an envelope against the present attempt, before a byte of its body is taken.

        Raises:
            ClientFault: the first thing that is wrong; nothing changed.
        """
        if self._mailbox.stopping:
            raise ClientFault(Reason.DRAINING, "the coordinator is stopping")
        self._checks.check(session, envelope)

    def reject(self, session: Session, envelope: Envelope, fault: ClientFault) -> Verdict:
        """Count a refusal and say what it amounts to."""
        return self._verification.reject(session, envelope, fault)

    async def _room(self, session: Session, envelope: Envelope, sender: Sender) -> Upload:
        """Wait until the body has room; the sender holds meanwhile."""
        started = self._clock.monotonic()
        seen = self._in_flight.changes
        upload = self._in_flight.claim(session.worker, envelope, in_memory=True)
        if upload is not None:
            return upload
        await sender.hold()
        while upload is None:
            patience = started + MEMORY_PATIENCE_SECONDS - self._clock.monotonic()
            look_again = patience if patience > 0 else LOOK_AGAIN_SECONDS
            await self._in_flight.room_changed(seen, session.closed, look_again)
            if not session.open:
                raise ClientFault(Reason.NO_SESSION, "the session ended while the upload was held")
            self.let_in(session, envelope)
            seen = self._in_flight.changes
            patient = self._clock.monotonic() - started < MEMORY_PATIENCE_SECONDS
            upload = self._in_flight.claim(session.worker, envelope, in_memory=patient)
        return upload

    async def _take_in(self, session: Session, upload: Upload, sender: Sender) -> Verdict:
        whole = False
        try:
            await sender.proceed(upload.body.received)
            while not upload.complete:
                chunk = await sender.next_chunk(upload)
                if chunk is None:
                    raise ClientFault(
                        Reason.TRUNCATED,
                        f"the stream ended at byte {upload.body.received} of {upload.envelope.body_size};"
                        " send the envelope again to go on from there",
                    )
                offset, data = chunk
                await finished(asyncio.to_thread(upload.take, offset, data))
                self._cost.received(len(data))
                session.last_seen = self._clock.monotonic()
                # The bytes are not kept while the next ones are on their way.
                del chunk, data
            whole = True
            return await self._verification.judge(session, upload)
        except asyncio.CancelledError:
            # The sender broke off, or gRPC itself refused a message of it: both look like this.
            if not whole:
                fault = ClientFault(Reason.TRUNCATED, f"the call broke off at byte {upload.body.received}")
                self.reject(session, upload.envelope, fault)
            raise
        finally:
            if not whole:
                self._in_flight.release(upload)
