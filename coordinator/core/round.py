r"""The round machine: `step(state, event) -> (state, effects)`.

Rules it keeps:

- Nothing is sent that was not asked to be persisted first: effects come out in the order the driver must keep.
- A round has at most one attempt at a time; an attempt has one cohort, fixed when it opens.
- An attempt ends exactly once, committed or abandoned. Abandoning is a transition like any other.
- A client counts at most once in an attempt. An upload is taken or left as a whole.
- Reproducible mode: a cohort is over all registered clients, closes when every one of them is accepted, never
  by time. Elastic mode: over connected clients, closes at the goal, or at the deadline with enough updates.
- A restored attempt (its accepted set was journaled before a crash) closes with exactly that set or not at all.
- Under secure aggregation a worker uploads once in an attempt, and from UNMASKING on the set never changes
  (`coordinator.core.unmasking`).

    WAITING --enough clients--> TRAINING --all, goal or deadline--> COMMITTING --durable--> WAITING | PAUSED | ...
                                    \--(secure aggregation)--> UNMASKING --sum open--^
       ^                           |  \--a client fails for good--> HALTED --resume--> TRAINING
       |                           |     COMMITTING --a commit fails--> HALTED --resume--> COMMITTING
       +----- abandoned -----------+

It deliberately does not know the content of updates, model bytes, workers' addresses or how anything is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from coordinator.core import cohort, effects, events, unmasking
from coordinator.core.effects import Effect
from coordinator.core.policy import QUANTILE_WINDOW, Mode
from coordinator.core.state import Attempt, Phase, RunState
from coordinator.errors import InternalFault, Reason
from ssd_wire.uploads import UploadFate

UPLOAD_SHARE = 0.9
"""Elastic: workers upload what is finished when this share of the time to the deadline has passed."""

Step = tuple[RunState, tuple[Effect, ...]]


def step(state: RunState, event: events.Event) -> Step:
    """The state after `event` and what has to be done about it, in order.

    Raises:
        InternalFault: the event is impossible in this state (a commit nobody asked for); nothing changed.
    """
    out: list[Effect] = []
    match event:
        case events.Tick():
            state = _retry_due_clients(state, event.now, out)
        case events.WorkerAttached():
            state = _attach(state, event, out)
        case events.WorkerDetached():
            hosts = {client: worker for client, worker in state.hosts.items() if worker != event.worker}
            state = replace(state, hosts=hosts)
        case events.ClientRevoked():
            state = unmasking.revoked(state, _revoke(state, event), event)
        case events.ClientsGiven():
            state = _give(state, event)
        case events.UploadVerified():
            state = _take_upload(state, event, out)
        case events.ClientFailed():
            state = _count_failure(state, event)
        case events.SharersFixed():
            state = unmasking.sharers_fixed(state, event)
        case events.SumAborted():
            state = unmasking.aborted(state, event, out)
        case events.SumOpened():
            state = unmasking.opened(state, event, out)
        case events.UnmaskingStuck():
            state = unmasking.stuck(state, event, out)
        case events.VersionCommitted():
            state = _committed(state, event)
        case events.CommitFailed():
            state = _commit_failed(state, event, out)
        case events.PauseRequested():
            state = replace(state, paused=True)
            out.append(effects.PersistPaused(paused=True))
        case events.ResumeRequested():
            state = _resume(state, event.now, out)
        case events.DrainRequested():
            state = replace(state, draining=True)
        case _:
            raise InternalFault(f"no transition for {type(event).__name__}")
    return _settle(state, event.now, out)


def next_wakeup(state: RunState) -> float | None:
    """The earliest time at which a Tick could change something; None: only another event can."""
    times: list[float] = []
    if state.phase is Phase.WAITING:
        if state.retry_at is not None:
            times.append(state.retry_at)
        elif state.policy.wait_for_clients_seconds > 0 and state.waiting_since is not None:
            times.append(state.waiting_since + state.policy.wait_for_clients_seconds)
    if state.phase is Phase.TRAINING and state.attempt is not None:
        times.extend(state.attempt.retry_at.values())
        if state.attempt.deadline_at is not None:
            times.append(state.attempt.deadline_at)
    return min(times, default=None)


# ------------------------------------------------------------------------------------------- single events


def _attach(state: RunState, event: events.WorkerAttached, out: list[Effect]) -> RunState:
    if unknown := state.strangers(event.clients):
        out.append(effects.RegisterClients(clients=unknown))
    if state.bindings is not None:
        fresh = tuple(client for client in event.clients if client not in state.bindings)
        if fresh:
            out.append(effects.BindClients(worker=event.worker, clients=fresh))
            state = replace(state, bindings={**state.bindings, **dict.fromkeys(fresh, event.worker)})
    hosts = {client: worker for client, worker in state.hosts.items() if worker != event.worker}
    hosts.update(dict.fromkeys(event.clients, event.worker))
    # Where nobody is new, the set stays the same object, and nothing is computed from a hundred thousand clients again.
    state = replace(state, hosts=hosts, clients=state.clients.union(unknown) if unknown else state.clients)
    if state.phase is Phase.TRAINING and state.attempt is not None:
        wanted = [client for client in event.clients if _to_train_at_once(state, state.attempt, client)]
        _send_train(state, state.attempt, wanted, event.now, out)
    return state


def _revoke(state: RunState, event: events.ClientRevoked) -> RunState:
    state = replace(state, clients=state.clients - {event.client}, revoked=state.revoked | {event.client})
    attempt = state.attempt
    # In the committing phase the set is journaled: the revoked client's update stays in this last sum.
    # A journaled set commits as it is or not at all: see `_close_if_due`.
    if attempt is None or attempt.restored or attempt.closed or state.phase is Phase.COMMITTING:
        return state
    if not attempt.wants(event.client):
        return state
    cohort_left = tuple(client for client in attempt.cohort if client != event.client)
    return replace(
        state, attempt=replace(attempt, cohort=cohort_left, goal=min(attempt.goal, len(cohort_left)))
    )


def _give(state: RunState, event: events.ClientsGiven) -> RunState:
    if state.bindings is None:
        return state
    bindings = {**state.bindings, **dict.fromkeys(event.clients, event.worker)}
    granted = state.granted_workers | {event.worker} if event.granted else state.granted_workers
    return replace(state, bindings=bindings, granted_workers=granted)


def _take_upload(state: RunState, event: events.UploadVerified, out: list[Effect]) -> RunState:
    attempt = state.attempt
    refusal = _refusal(state, event)
    if refusal is not None:
        fate, reason = refusal
        out.append(effects.AnswerUpload(upload=event.upload, fate=fate, reason=reason.value))
        return state
    assert attempt is not None  # _refusal answers for it
    out.append(effects.FoldUpload(upload=event.upload))
    out.append(effects.AnswerUpload(upload=event.upload, fate=UploadFate.ACCEPTED))
    took = event.now - attempt.opened_at
    attempt = replace(attempt, accepted=attempt.accepted | frozenset(event.clients))
    if state.policy.secure:
        attempt = unmasking.uploaded(state, attempt, event.worker)
    return replace(
        state,
        attempt=attempt,
        report_seconds=(*state.report_seconds, took)[-QUANTILE_WINDOW:],
    )


def _refusal(state: RunState, event: events.UploadVerified) -> tuple[UploadFate, Reason] | None:
    attempt = state.attempt
    if attempt is None or attempt.round != event.round:
        return UploadFate.DISCARDED, Reason.TOO_LATE
    if attempt.number != event.attempt:
        return UploadFate.DISCARDED, Reason.STALE_ATTEMPT
    if state.phase not in (Phase.TRAINING, Phase.HALTED) or attempt.closed or attempt.doomed:
        return UploadFate.DISCARDED, Reason.TOO_LATE
    if event.worker in attempt.uploaders or any(client in attempt.accepted for client in event.clients):
        return UploadFate.DISCARDED, Reason.DUPLICATE
    if any(client not in state.clients for client in event.clients):
        return UploadFate.REJECTED, Reason.CLIENT_REVOKED
    if any(not attempt.invites(client) for client in event.clients):
        return UploadFate.REJECTED, Reason.CLIENT_NOT_INVITED
    if any(
        state.hosts.get(client) not in (event.worker, None) or not state.belongs_to(client, event.worker)
        for client in event.clients
    ):
        return UploadFate.REJECTED, Reason.CLIENT_NOT_HOSTED
    return None


def _count_failure(state: RunState, event: events.ClientFailed) -> RunState:
    attempt = state.attempt
    if attempt is None or (attempt.round, attempt.number) != (event.round, event.attempt):
        return state
    named = event.clients or tuple(c for c in attempt.cohort if state.hosts.get(c) == event.worker)
    failures = dict(attempt.failures)
    retry_at = dict(attempt.retry_at)
    for client in named:
        # Only its own host may report a client failed, and only while the client is still wanted.
        if not attempt.wants(client) or state.hosts.get(client) != event.worker:
            continue
        failures[client] = failures.get(client, 0) + 1
        if _insists(state, attempt):
            retry_at[client] = event.now + state.policy.retry_seconds
            if failures[client] >= state.policy.max_client_failures:
                reason = f"client {client} failed {failures[client]} times in round {attempt.round}: {event.reason}"
                state = replace(state, halt_reason=reason)
    return replace(state, attempt=replace(attempt, failures=failures, retry_at=retry_at))


def _retry_due_clients(state: RunState, now: float, out: list[Effect]) -> RunState:
    attempt = state.attempt
    if state.phase is not Phase.TRAINING or attempt is None:
        return state
    due = [client for client, at in attempt.retry_at.items() if at <= now]
    if not due:
        return state
    waiting = {client: at for client, at in attempt.retry_at.items() if at > now}
    attempt = replace(attempt, retry_at=waiting)
    _send_train(state, attempt, [client for client in due if attempt.wants(client)], now, out)
    return replace(state, attempt=attempt)


def _committed(state: RunState, event: events.VersionCommitted) -> RunState:
    if state.phase is not Phase.COMMITTING or event.version != state.version + 1:
        raise InternalFault(
            f"version {event.version} was committed in phase {state.phase} of {state.version}"
        )
    return replace(
        state,
        version=event.version,
        attempt=None,
        attempts_made=0,
        phase=Phase.WAITING,
        waiting_since=event.now,
        retry_at=None,
    )


def _commit_failed(state: RunState, event: events.CommitFailed, out: list[Effect]) -> RunState:
    attempt = state.attempt
    if state.phase is not Phase.COMMITTING or attempt is None:
        raise InternalFault(f"a commit failed in phase {state.phase}")
    # The set is journaled: like a restored attempt it commits as it is, as soon as somebody resumes.
    accepted = tuple(sorted(attempt.accepted))
    attempt = replace(attempt, cohort=accepted, goal=len(accepted), deadline_at=None, restored=True)
    out.append(effects.Halt(reason=event.reason))
    return replace(state, phase=Phase.HALTED, halt_reason=event.reason, attempt=attempt)


def _resume(state: RunState, now: float, out: list[Effect]) -> RunState:
    out.append(effects.PersistPaused(paused=False))
    state = replace(state, paused=False, halt_reason="")
    if state.phase in (Phase.PAUSED, Phase.HALTED):
        attempt = state.attempt
        if attempt is None:
            return replace(state, phase=Phase.WAITING, waiting_since=now, retry_at=None)
        if attempt.closed:
            return unmasking.again(state, attempt, out)
        attempt = replace(attempt, failures={}, retry_at={})
        state = replace(state, phase=Phase.TRAINING, attempt=attempt)
        if not attempt.doomed:
            _send_train(state, attempt, [c for c in attempt.cohort if attempt.wants(c)], now, out)
    return state


# ------------------------------------------------------------------------------------------------ settling


def _settle(state: RunState, now: float, out: list[Effect]) -> Step:
    """Follow every transition that is due, until none is."""
    if state.phase is Phase.TRAINING:
        state = _close_if_due(state, now, out)
    if state.phase is Phase.TRAINING and state.halt_reason:
        out.append(effects.Halt(reason=state.halt_reason))
        state = replace(state, phase=Phase.HALTED)
    if state.phase in (Phase.WAITING, Phase.PAUSED, Phase.HALTED, Phase.FINISHED):
        state = _open_if_possible(state, now, out)
    return state, tuple(out)


def _close_if_due(state: RunState, now: float, out: list[Effect]) -> RunState:
    attempt = state.attempt
    if attempt is None:
        return state
    accepted = len(attempt.accepted)
    if attempt.doomed:
        return _abandon(state, attempt, attempt.doomed, now, out)
    if attempt.restored and not set(attempt.cohort) - attempt.accepted <= state.clients:
        return _abandon(state, attempt, "a client of the journaled set was revoked", now, out)
    if _insists(state, attempt):
        if attempt.cohort and accepted == len(attempt.cohort):
            return _close(state, attempt, out)
        if not attempt.cohort:
            return _abandon(state, attempt, "every client of the cohort was revoked", now, out)
        if attempt.deadline_at is not None and now >= attempt.deadline_at:
            return _abandon(state, attempt, "the journaled updates did not come back in time", now, out)
        return state
    updates = accepted >= max(1, state.policy.min_updates)
    enough = updates and unmasking.openable(state, attempt)
    if enough and accepted >= attempt.goal:
        return _close(state, attempt, out)
    if not any(_to_train(attempt, client) for client in attempt.cohort):
        if enough:
            return _close(state, attempt, out)
        missing = unmasking.shortfall(attempt) if updates else f"only {accepted} clients could report"
        return _abandon(state, attempt, missing, now, out)
    if attempt.deadline_at is not None and now >= attempt.deadline_at:
        if enough:
            return _close(state, attempt, out)
        missing = f"deadline with {accepted} of {state.policy.min_updates} updates"
        return _abandon(state, attempt, unmasking.shortfall(attempt) if updates else missing, now, out)
    return state


def _close(state: RunState, attempt: Attempt, out: list[Effect]) -> RunState:
    accepted = tuple(sorted(attempt.accepted))
    if state.policy.secure:
        return unmasking.close(state, attempt, out)
    out.append(effects.CloseAndCommit(round=attempt.round, attempt=attempt.number, accepted=accepted))
    return replace(state, phase=Phase.COMMITTING, halt_reason="")


def _abandon(state: RunState, attempt: Attempt, reason: str, now: float, out: list[Effect]) -> RunState:
    workers = tuple(sorted({state.hosts[client] for client in attempt.cohort if client in state.hosts}))
    out.append(
        effects.AbandonAttempt(round=attempt.round, attempt=attempt.number, reason=reason, workers=workers)
    )
    return replace(
        state,
        attempt=None,
        phase=Phase.WAITING,
        waiting_since=now,
        retry_at=now + state.policy.retry_seconds,
    )


def _open_if_possible(state: RunState, now: float, out: list[Effect]) -> RunState:
    if state.phase is Phase.HALTED:
        # The operator must look first; a drain still goes through.
        return _drained(state, out) if state.draining else state
    if state.draining:
        return _drained(state, out)
    if state.version >= state.policy.rounds:
        if state.phase is not Phase.FINISHED:
            out.append(effects.RunFinished())
        return replace(state, phase=Phase.FINISHED)
    if state.paused:
        return replace(state, phase=Phase.PAUSED)
    state = replace(state, phase=Phase.WAITING)
    if state.retry_at is not None and now < state.retry_at:
        return state
    state = replace(state, retry_at=None)
    short, sentence = state.waiting_for()
    if short > 0:
        limit = state.policy.wait_for_clients_seconds
        since = now if state.waiting_since is None else state.waiting_since
        if limit > 0 and now - since >= limit:
            reason = f"waited {limit:g} s: {sentence}"
            out.append(effects.Halt(reason=reason))
            return replace(state, phase=Phase.HALTED, halt_reason=reason)
        return replace(state, waiting_since=since)
    return _open(state, now, out)


def _drained(state: RunState, out: list[Effect]) -> RunState:
    out.append(effects.Stop())
    return replace(state, phase=Phase.DRAINED)


def _open(state: RunState, now: float, out: list[Effect]) -> RunState:
    state = _assign_indexes(state, out)
    policy = state.policy
    number = state.attempts_made + 1
    population: Iterable[str] = state.clients
    if policy.mode is Mode.ELASTIC:
        population = state.connected()
    invited = cohort.sample(policy, state.round, number, population)
    after = cohort.deadline_after(policy, state.report_seconds)
    attempt = Attempt(
        round=state.round,
        number=number,
        cohort=invited,
        goal=min(policy.cohort_size, len(invited)),
        opened_at=now,
        deadline_at=None if after is None else now + after,
    )
    out.append(effects.OpenAttempt(round=attempt.round, attempt=number, cohort=invited))
    state = replace(
        state,
        phase=Phase.TRAINING,
        attempt=attempt,
        attempts_made=number,
        waiting_since=None,
        retry_at=None,
    )
    _send_train(state, attempt, list(invited), now, out)
    return state


def _assign_indexes(state: RunState, out: list[Effect]) -> RunState:
    """Give every registered client without one its index: by rank at first, appended later.

    At the first round everybody known is ranked together, so who connected first does not matter.
    """
    # A revoked client keeps its rank, so that revoking one before the first round moves nobody else.
    everybody = (state.clients | state.revoked) - state.indexes.keys()
    named = sorted(everybody & set(state.policy.named_clients))
    others = sorted(everybody - set(named))
    fresh = [*named, *others]
    if not fresh:
        return state
    start = max(state.indexes.values(), default=-1) + 1
    given = tuple((client, start + rank) for rank, client in enumerate(fresh))
    out.append(effects.AssignIndexes(indexes=given))
    return replace(state, indexes={**state.indexes, **dict(given)})


# ----------------------------------------------------------------------------------------------- small parts


def _insists(state: RunState, attempt: Attempt) -> bool:
    """Whether every client of the cohort must be accepted."""
    return state.policy.mode is Mode.REPRODUCIBLE or attempt.restored


def _to_train(attempt: Attempt, client: str) -> bool:
    return attempt.wants(client) and not attempt.failures.get(client)


def _to_train_at_once(state: RunState, attempt: Attempt, client: str) -> bool:
    """Whether a client whose host has just arrived gets its task now.

    A failed client gets it when its pause is over; if that came while nobody hosted the client, then now.
    """
    overdue = _insists(state, attempt) and client in attempt.failures and client not in attempt.retry_at
    return _to_train(attempt, client) or (overdue and attempt.wants(client))


def _send_train(
    state: RunState, attempt: Attempt, clients: Iterable[str], now: float, out: list[Effect]
) -> None:
    by_worker: defaultdict[str, list[str]] = defaultdict(list)
    for client in sorted(clients):
        if client in state.hosts and attempt.wants(client) and client in state.clients:
            by_worker[state.hosts[client]].append(client)
    within = 0.0
    if attempt.deadline_at is not None:
        within = max(0.001, (attempt.deadline_at - now) * UPLOAD_SHARE)
    out.extend(
        effects.SendTrain(
            worker=worker,
            round=attempt.round,
            attempt=attempt.number,
            clients=tuple(names),
            upload_within_seconds=within,
        )
        for worker, names in sorted(by_worker.items())
    )
