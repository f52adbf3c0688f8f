"""Uploads on their way in: which are let in, what has arrived of each, which may go on where they broke off."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from coordinator.core.state import Fate, Phase, RunState
from coordinator.errors import ClientFault, Reason
from coordinator.messages import Envelope, Verdict
from coordinator.ports.storage import StagedBody, Staging
from coordinator.workers.sessions import Session
from ssd.digest import CHUNK_BYTES
from ssd.updates.fold import FoldPlan, UpdateRefused, check_fold, check_update

DISCARDING = frozenset(
    {
        Reason.TOO_LATE,
        Reason.STALE_ATTEMPT,
        Reason.DUPLICATE,
        Reason.NOT_NEEDED,
        Reason.DRAINING,
        Reason.NO_ROOM,
    }
)
"""Reasons that say nothing against the update itself; every other one rejects it."""

RETRYING = frozenset(
    {
        Reason.CORRUPT_CHUNK,
        Reason.TRUNCATED,
        Reason.STALLED,
        Reason.BAD_OFFSET,
        Reason.NO_SESSION,
        Reason.FENCED,
        Reason.MALFORMED_MESSAGE,
    }
)
"""Faults of one transmission: the update may be sent again and its client has not failed."""

CONTENT = frozenset(
    {
        Reason.NOT_FINITE,
        Reason.OVER_BOUND,
        Reason.OVER_NORM,
        Reason.WEIGHT_OUT_OF_RANGE,
        Reason.STATISTIC_OUT_OF_RANGE,
        Reason.MALFORMED_UPDATE,
        Reason.WRONG_LENGTH,
    }
)
"""Faults of the update: its clients have failed this attempt."""


def verdict_of(fault: ClientFault) -> Verdict:
    """The verdict a fault amounts to."""
    fate = Fate.DISCARDED if fault.reason in DISCARDING else Fate.REJECTED
    return Verdict(fate=fate, reason=fault.reason.value, detail=fault.detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class Addressing:
    """What an upload of the present attempt must say."""

    run_id: str
    spec_digest: str
    base_digest: str
    task_digest: str


def check_envelope(
    state: RunState,
    addressing: Addressing,
    plan: FoldPlan,
    session: Session,
    envelope: Envelope,
    masked_nbytes: int | None = None,
) -> None:
    """Refuse an upload before a byte of its body is taken.

    Args:
        state: the run's.
        addressing: what it must say.
        plan: of the present round.
        session: whose upload it is.
        envelope: what it says.
        masked_nbytes: the length of a masked upload; None: the run has no secure aggregation.

    Raises:
        ClientFault: the first thing that is wrong; nothing changed.
    """
    if envelope.run_id != addressing.run_id:
        raise ClientFault(Reason.WRONG_RUN, f"this coordinator works on run {addressing.run_id}")
    if envelope.spec_digest != addressing.spec_digest:
        raise ClientFault(Reason.WRONG_SPEC, "the body is laid out by another parameter spec than this run's")
    if masked_nbytes is not None and not envelope.masked:
        raise ClientFault(
            Reason.SECURE_AGGREGATION_REQUIRED, "this run takes updates under masks only, none in the clear"
        )
    if masked_nbytes is None and envelope.masked:
        raise ClientFault(
            Reason.MALFORMED_MESSAGE, "this run has no secure aggregation, masks would not cancel"
        )
    if envelope.round < 1 or envelope.round > state.round:
        raise ClientFault(
            Reason.WRONG_ROUND, f"round {envelope.round} has not begun; the run is at round {state.round}"
        )
    if envelope.round < state.round:
        raise ClientFault(Reason.TOO_LATE, f"round {envelope.round} is over; the run is at {state.round}")
    if envelope.base_digest != addressing.base_digest:
        raise ClientFault(
            Reason.WRONG_BASE, f"round {state.round} trains from version {state.version}, not from that base"
        )
    attempt = state.attempt
    if attempt is None or state.phase not in (Phase.TRAINING, Phase.HALTED):
        raise ClientFault(Reason.TOO_LATE, f"round {state.round} takes no updates now")
    if envelope.attempt != attempt.number:
        raise ClientFault(
            Reason.STALE_ATTEMPT,
            f"round {state.round} is at attempt {attempt.number}, not {envelope.attempt}",
        )
    if envelope.task_digest != addressing.task_digest:
        raise ClientFault(Reason.WRONG_TASK, "the update answers another task than this round's")
    _check_clients(state, plan, session, envelope)
    _check_size(plan, envelope, masked_nbytes)


def _check_clients(state: RunState, plan: FoldPlan, session: Session, envelope: Envelope) -> None:
    attempt = state.attempt
    assert attempt is not None
    if not envelope.clients or (len(envelope.clients) != 1 and not (envelope.fold or envelope.masked)):
        raise ClientFault(Reason.MALFORMED_MESSAGE, "an update names exactly one client, a fold at least one")
    if envelope.fold and plan.declaration.collects:
        raise ClientFault(
            Reason.FOLD_NOT_ALLOWED, "this run's method works with single updates: upload each client alone"
        )
    if envelope.duplicate_clients:
        raise ClientFault(Reason.DUPLICATE, "a client is named twice in one upload")
    for client, weight in envelope.clients.items():
        if client not in session.clients:
            raise ClientFault(
                Reason.CLIENT_NOT_HOSTED, f"client {client} is not hosted by worker {session.worker}"
            )
        if client not in state.clients:
            raise ClientFault(Reason.CLIENT_REVOKED, f"client {client} was revoked")
        if client not in attempt.cohort:
            raise ClientFault(
                Reason.CLIENT_NOT_INVITED, f"client {client} is not in the cohort of round {attempt.round}"
            )
        if client in attempt.accepted:
            raise ClientFault(Reason.DUPLICATE, f"client {client} is in this round's sum already")
        if not envelope.masked and not 1 <= weight <= plan.max_client_weight:
            raise ClientFault(
                Reason.WEIGHT_OUT_OF_RANGE,
                f"client {client} claims weight {weight}; 1 to {plan.max_client_weight} is allowed",
            )


def _check_size(plan: FoldPlan, envelope: Envelope, masked_nbytes: int | None) -> None:
    if envelope.masked:
        if envelope.body_size != masked_nbytes:
            raise ClientFault(
                Reason.WRONG_LENGTH, f"a masked upload has {masked_nbytes} bytes, not {envelope.body_size}"
            )
    elif envelope.fold:
        if not 0 < envelope.body_size <= plan.max_fold_nbytes:
            raise ClientFault(
                Reason.WRONG_LENGTH,
                f"a fold has at most {plan.max_fold_nbytes} bytes, not {envelope.body_size}",
            )
    elif envelope.body_size != plan.update_nbytes:
        raise ClientFault(
            Reason.WRONG_LENGTH, f"an update has {plan.update_nbytes} bytes, not {envelope.body_size}"
        )
    chunks = -(-envelope.body_size // CHUNK_BYTES)
    if len(envelope.chunk_digests) != chunks:
        raise ClientFault(
            Reason.WRONG_LENGTH, f"{chunks} chunk digests were expected, not {len(envelope.chunk_digests)}"
        )


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


class UploadDesk:
    """Uploads by (worker, envelope digest), so that a broken one goes on where it stopped."""

    def __init__(self, staging: Staging, bytes_per_worker: int | None = None) -> None:
        self._staging = staging
        self._bytes_per_worker = bytes_per_worker
        self._uploads: dict[tuple[str, str], Upload] = {}

    def claim(self, worker: str, envelope: Envelope) -> Upload | None:
        """The upload of this envelope, resumed or new; None: no room now, or an older call must let go of it first."""
        key = (worker, envelope.digest)
        upload = self._uploads.get(key)
        if upload is None:
            if self._has_rival(worker, envelope):
                return None
            if not self._within_share(worker, envelope.body_size):
                return None
            body = self._staging.open(envelope.body_size)
            if body is None and not self._evict_idle():
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
        rivals = [
            each
            for each in self._uploads.values()
            if each.worker == worker and each.envelope.clients.keys() & envelope.clients.keys()
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
        if upload.interruption is not None and upload.interruption.reason in (
            Reason.TOO_LATE,
            Reason.STALLED,
        ):
            self.finish(upload)

    def finish(self, upload: Upload) -> None:
        """The upload has its verdict; its room is given back."""
        self._uploads.pop((upload.worker, upload.envelope.digest), None)
        upload.busy = False
        upload.body.discard()

    def forget(self) -> None:
        """An attempt ended: what is not whole by now will not be wanted."""
        for upload in list(self._uploads.values()):
            if upload.busy:
                upload.interrupt(
                    ClientFault(Reason.TOO_LATE, "the attempt ended while the body was on its way")
                )
            else:
                self.finish(upload)

    def _evict_idle(self) -> bool:
        """Give up the oldest broken-off upload to make room; its worker starts that one again."""
        for upload in self._uploads.values():
            if not upload.busy:
                self.finish(upload)
                return True
        return False
