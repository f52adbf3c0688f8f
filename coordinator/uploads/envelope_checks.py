"""Checks of an upload's envelope, before any of its body is read."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.state import Phase, RunState
from coordinator.errors import ClientFault, Reason
from coordinator.workers.sessions import Session
from ssd.digest import CHUNK_BYTES
from ssd.updates.fold import FoldPlan
from ssd_wire.uploads import Envelope, UploadFate, Verdict

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
    fate = UploadFate.DISCARDED if fault.reason in DISCARDING else UploadFate.REJECTED
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
    names = set(envelope.names)
    if not names or (len(names) != 1 and not (envelope.fold or envelope.masked)):
        raise ClientFault(Reason.MALFORMED_MESSAGE, "an update names exactly one client, a fold at least one")
    if envelope.fold and plan.declaration.collects:
        raise ClientFault(
            Reason.FOLD_NOT_ALLOWED, "this run's method works with single updates: upload each client alone"
        )
    if len(names) != len(envelope.clients):
        raise ClientFault(Reason.DUPLICATE, "a client is named twice in one upload")
    for each in envelope.clients:
        client = each.client
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
        if not envelope.masked and not 1 <= each.weight <= plan.max_client_weight:
            raise ClientFault(
                Reason.WEIGHT_OUT_OF_RANGE,
                f"client {client} claims weight {each.weight}; 1 to {plan.max_client_weight} is allowed",
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
