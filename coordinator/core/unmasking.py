"""What secure aggregation adds to the round machine: one upload a worker, and a phase in which the sum is opened.

Rules it keeps:

- Nothing is asked of the participants before the accepted set is journaled (`OpenSum`), and from then on the set
  never changes: it is opened and committed as it is, or waits for the operator.
- An attempt whose sum nobody can open any more, and for which nobody revealed anything, is abandoned like any other.
- A client whose worker has uploaded without it cannot come later: its mask would not cancel.

How keys, masks and shares are exchanged is the business of `coordinator.core.secure_aggregation.attempt`.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.core import effects, events
from coordinator.core.effects import Effect
from coordinator.core.policy import Mode
from coordinator.core.state import Attempt, Phase, RunState
from coordinator.errors import InternalFault
from ssd.secagg.protocol.errors import AbortReason


def _concerned(state: RunState, round_number: int, number: int) -> Attempt | None:
    attempt = state.attempt
    if attempt is None or (attempt.round, attempt.number) != (round_number, number):
        return None
    return attempt


def openable(state: RunState, attempt: Attempt) -> bool:
    """Whether enough workers uploaded for their sum to be opened; true if sums are not masked."""
    if not state.policy.secure:
        return True
    return attempt.fewest_uploads is not None and len(attempt.uploaders) >= attempt.fewest_uploads


def shortfall(attempt: Attempt) -> str:
    """Why a sum that lacks uploads of workers, not of clients, cannot be opened."""
    if attempt.fewest_uploads is None:
        return "no keys were exchanged in time"
    return (
        f"{AbortReason.TOO_FEW_SURVIVORS.value}: {len(attempt.uploaders)} workers uploaded, the sum can be opened"
        f" with {attempt.fewest_uploads} at least"
    )


def uploaded(state: RunState, attempt: Attempt, worker: str) -> Attempt:
    """A worker's one upload was accepted: its clients that are not in it are out of this attempt."""
    left_out = {client for client in attempt.cohort if attempt.wants(client)}
    left_out &= {client for client, host in state.hosts.items() if host == worker}
    return replace(
        attempt,
        uploaders=attempt.uploaders | {worker},
        failures={**attempt.failures, **dict.fromkeys(left_out, 1)},
    )


def sharers_fixed(state: RunState, event: events.SharersFixed) -> RunState:
    """The keys are exchanged: who did not take part cannot upload."""
    attempt = _concerned(state, event.round, event.attempt)
    if attempt is None or attempt.closed:
        return state
    outside = [c for c in attempt.cohort if attempt.wants(c) and c not in event.clients]
    attempt = replace(attempt, fewest_uploads=event.fewest_uploads)
    if outside and state.policy.mode is Mode.REPRODUCIBLE:
        attempt = replace(attempt, doomed=f"client {outside[0]} is at no worker that takes part")
    else:
        attempt = replace(attempt, failures={**attempt.failures, **dict.fromkeys(outside, 1)})
    return replace(state, attempt=attempt)


def revoked(before: RunState, state: RunState, event: events.ClientRevoked) -> RunState:
    """`state` follows from `before`: a worker may not mask again without a client that was revoked."""
    attempt = before.attempt
    if not state.policy.secure or attempt is None or attempt.closed or not attempt.wants(event.client):
        return state
    return replace(state, attempt=replace(attempt, doomed=f"client {event.client} was revoked"))


def close(state: RunState, attempt: Attempt, out: list[Effect]) -> RunState:
    """Enough are in: journal the set, then open its sum."""
    accepted = tuple(sorted(attempt.accepted))
    out.append(effects.OpenSum(round=attempt.round, attempt=attempt.number, accepted=accepted))
    attempt = replace(attempt, closed=True)
    return replace(state, phase=Phase.UNMASKING, attempt=attempt, halt_reason="")


def again(state: RunState, attempt: Attempt, out: list[Effect]) -> RunState:
    """The operator resumed: the same set is opened, or its open sum committed."""
    return close(state, attempt, out)


def opened(state: RunState, event: events.SumOpened, out: list[Effect]) -> RunState:
    """The sum is open: commit it.

    Raises:
        InternalFault: nobody asked for that sum.
    """
    attempt = _concerned(state, event.round, event.attempt)
    if state.phase is not Phase.UNMASKING or attempt is None:
        raise InternalFault(f"a sum was opened in phase {state.phase}")
    accepted = tuple(sorted(attempt.accepted))
    out.append(effects.CloseAndCommit(round=attempt.round, attempt=attempt.number, accepted=accepted))
    return replace(state, phase=Phase.COMMITTING)


def aborted(state: RunState, event: events.SumAborted, out: list[Effect]) -> RunState:
    """The attempt is to be abandoned, at once or, if that alone would not help, when the operator resumes."""
    attempt = _concerned(state, event.round, event.attempt)
    if attempt is None or state.phase is Phase.COMMITTING:
        return state
    # A set that nobody revealed anything for is a set like any other that came to nothing.
    attempt = replace(attempt, doomed=event.reason, closed=False)
    phase = Phase.TRAINING if state.phase is Phase.UNMASKING else state.phase
    state = replace(state, phase=phase, attempt=attempt)
    if event.halt and phase is not Phase.HALTED:
        out.append(effects.Halt(reason=event.reason))
        state = replace(state, phase=Phase.HALTED, halt_reason=event.reason)
    return state


def stuck(state: RunState, event: events.UnmaskingStuck, out: list[Effect]) -> RunState:
    """Only the operator can go on: the set stays journaled and may still be opened."""
    attempt = _concerned(state, event.round, event.attempt)
    if state.phase is not Phase.UNMASKING or attempt is None:
        return state
    out.append(effects.Halt(reason=event.reason))
    return replace(state, phase=Phase.HALTED, halt_reason=event.reason)
