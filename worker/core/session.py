"""The worker's session machine: `step(session, event) -> (session, effects)`.

Rules it keeps:

- What a worker tells is persisted first: effects come out in the order the driver must keep.
- Training does not care about the link: it goes on while the worker is offline, and what it finishes is offered
  in the next hello.
- One task at a time; the newest `Train` is the one that counts. The attempt is only an envelope: work for the same
  (round, base, task digest) is adopted, finished updates are reused, never trained twice.
- A client is uploaded in an attempt until the coordinator has judged it, and not again in that session.
- A pending client state becomes current only through a commit that includes the client (a `Committed`, or the fate
  of a held update in a welcome), at most once per round, and never backwards.
- The training process does one thing at a time: an evaluation of clients, else a client's training, else an
  evaluation on probe data.
- The history of a run only grows: a coordinator that contradicts what was seen is not worked for (`worker.core.history`).
- Clients are measured in a state that no commit after the measured version made.
- Under secure aggregation an update leaves the host masked or not at all (`worker.core.secagg_client`).

It deliberately does not know files, sockets, model bytes, time or how training works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ssd_wire import messages
from worker.core import effects, events, secagg_client, uploading, work
from worker.core.commits import apply_commit, apply_fates, drop
from worker.core.effects import Effect
from worker.core.history import contradiction
from worker.core.public_reasons import public
from worker.core.state import Link, Session, Stage
from worker.errors import CoordinatorFault

PERMANENT = frozenset(
    {
        "protocol_version",
        "bad_name",
        "identity_mismatch",
        "tls_version",
        "no_identity",
        "wrong_federation",
        "role",
        "revoked",
        "labels_needed",
    }
)
"""Refusals that no amount of waiting changes."""
LEAST_REDIAL_SECONDS = 0.1
"""How long a worker waits at least before it calls again, whatever the coordinator says."""
MAX_EVALUATIONS = 4
"""Evaluations that wait for the training process; beyond it the oldest is answered `superseded`."""

Step = tuple[Session, tuple[Effect, ...]]


def step(session: Session, event: events.Event) -> Step:
    """The session after `event` and what has to be done about it, in order.

    Raises:
        CoordinatorFault: the coordinator's message is impossible here; nothing changed.
    """
    out: list[Effect] = []
    session = _HANDLERS[type(event)](session, event, out)
    session = work.dispatch(secagg_client.tidy(session, out), out)
    return session, tuple(out)


# ------------------------------------------------------------------------------------------------------ link


def _dial(session: Session, _: events.DialDue, out: list[Effect]) -> Session:
    if session.stopped or session.link is not Link.OFFLINE:
        return session
    keys = tuple(sorted(session.held))
    out.append(
        effects.OpenLink(
            run_id=session.run_id,
            clients=dict(session.clients),
            versions_held=tuple(sorted(session.versions)),
            held_updates=keys,
            newest=(0, "") if session.accepts_rollback else session.newest,
        )
    )
    return replace(session, link=Link.DIALLING, hello_held=keys)


def _link_lost(session: Session, event: events.LinkLost, out: list[Effect]) -> Session:
    if session.link is Link.OFFLINE:
        return session
    session = _offline(session, out)
    failures = session.failures + 1
    if event.reason in PERMANENT:
        out.append(effects.GiveUp(reason=event.reason, detail=event.detail))
        return replace(session, stopped=True)
    wait = session.backoff.seconds(failures, event.uniform)
    fields = {
        "reason": event.reason,
        "detail": event.detail,
        "failures": failures,
        "retry_seconds": round(wait, 3),
    }
    out.append(effects.Note(event="link_lost", level="warning", fields=fields))
    out.append(effects.Redial(seconds=wait))
    return replace(session, failures=failures)


def _offline(session: Session, out: list[Effect]) -> Session:
    """Everything bound to the session token ends; training goes on."""
    current = session.work
    if current is not None:
        if current.stage is Stage.PREPARING:
            out.append(effects.StopPreparing())
            current = replace(current, stage=Stage.UNPREPARED)
        if current.upload is not None and current.upload.active:
            out.append(effects.StopUpload())
            current = replace(current, upload=replace(current.upload, active=False))
        current = replace(current, live=False)
    session = secagg_client.offline(session)
    # Who asked for clients asks again.
    on_probe = tuple(each for each in session.evaluations if not each.clients)
    return replace(session, link=Link.OFFLINE, work=current, evaluations=on_probe)


def _hang_up(session: Session, seconds: float, out: list[Effect]) -> Session:
    session = _offline(session, out)
    # A coordinator that says "come again at once" without end would keep a core busy.
    out.extend((effects.CloseLink(), effects.Redial(seconds=max(LEAST_REDIAL_SECONDS, seconds))))
    return session


def _welcomed(session: Session, event: events.Welcomed, out: list[Effect]) -> Session:
    welcome = event.welcome
    if session.link is not Link.DIALLING:
        raise CoordinatorFault("a second welcome in one stream")
    if len(welcome.held_fates) != len(session.hello_held):
        raise CoordinatorFault(
            f"{len(welcome.held_fates)} fates for {len(session.hello_held)} held updates in the welcome"
        )
    seen = session.newest
    if welcome.run_id != session.run_id:
        seen = event.stored.newest if event.stored is not None else (0, "")
    wrong = contradiction(seen, welcome.version)
    if wrong and not session.accepts_rollback:
        out.append(effects.Distrust(detail=f"run {welcome.run_id}: {wrong}"))
        out.append(effects.CloseLink())
        return replace(_offline(session, out), stopped=True)
    if wrong:
        out.append(effects.Note(event="rollback_accepted", level="warning", fields={"detail": wrong}))
    level, rolls_back = session.level, session.accepts_rollback
    if welcome.run_id != session.run_id:
        level = event.stored.level if event.stored is not None else secagg_client.OFF
    objection = secagg_client.objection(session, welcome, level)
    if objection:
        out.extend((effects.Decline(detail=objection), effects.CloseLink()))
        return replace(_offline(session, out), stopped=True)
    out.append(effects.OpenSession(welcome=welcome))
    session = replace(
        session,
        link=Link.ATTENDING,
        failures=0,
        newest=welcome.version.name,
        accepts_rollback=False,
        individual_updates=welcome.individual_updates,
        level=welcome.level,
        declaration_digest=welcome.declaration_digest,
        privacy=welcome.privacy,
        masking=welcome.masking,
    )
    if welcome.run_id != session.run_id:
        return _enter_run(session, event, level, out)
    _remember(session, seen, level, out)
    session, promoted, lost = apply_fates(session, welcome, out)
    session = _reinitialise(session, lost, "state_lost", out)
    session = _take_over(session, welcome, promoted, out, backwards=rolls_back)
    return work.rejoin(session, welcome, out)


def _remember(session: Session, before: tuple[int, str], level: str, out: list[Effect]) -> None:
    if session.level != level:
        out.append(effects.RememberLevel(level=session.level))
    if session.newest != before:
        number, digest = session.newest
        out.append(effects.RememberVersion(number=number, model_digest=digest))


def _enter_run(session: Session, event: events.Welcomed, level: str, out: list[Effect]) -> Session:
    stored = event.stored or events.StoredRun(run_id=event.welcome.run_id)
    session = _stop_job(work.abandon(session, out), out)
    session = drop(session, tuple(sorted(session.held)), "run_changed", out)
    out.append(effects.EnterRun(run_id=stored.run_id))
    _remember(session, stored.newest, level, out)
    out.append(effects.Note(event="run_entered", fields={"run": stored.run_id, "before": session.run_id}))
    session = replace(
        session,
        run_id=stored.run_id,
        clients={client: stored.rounds.get(client, 0) for client in session.clients},
        held={finished.key: finished for finished in stored.held},
        versions=dict(stored.versions),
        summed=stored.summed,
        evaluations=(),
        unsent=(),
        # A result of the run before must not be taken for one of this.
        job=None if session.job is None else replace(session.job, key=None, version=None),
    )
    if stored.held or any(session.clients.values()):
        # The hello spoke for another run; say it again so that the coordinator can compare what we hold of this one.
        return _hang_up(session, 0.0, out)
    return _take_over(session, event.welcome, frozenset(), out, backwards=False)


def _take_over(
    session: Session,
    welcome: messages.Welcome,
    promoted: frozenset[str],
    out: list[Effect],
    *,
    backwards: bool,
) -> Session:
    rounds = {
        client: number
        for client, number in welcome.reinitialise.items()
        if client in session.clients and client not in promoted
    }
    if session.level != secagg_client.OFF and not backwards:
        # Who may wipe a client's state whenever he likes decides who of a sum is a beginner.
        kept = sorted(client for client, number in rounds.items() if session.clients[client] >= number)
        rounds = {client: number for client, number in rounds.items() if client not in kept}
        if kept:
            fields: dict[str, object] = {"clients": len(kept), "first": kept[0]}
            out.append(effects.Note(event="reinitialise_refused", level="warning", fields=fields))
    return _reinitialise(session, rounds, "record_differs", out)


def _reinitialise(session: Session, rounds: Mapping[str, int], reason: str, out: list[Effect]) -> Session:
    if not rounds:
        return session
    # What was trained from a state that does not count must not count either.
    session = drop(
        session, tuple(k for k in sorted(session.held) if k.client in rounds), "reinitialised", out
    )
    out.append(effects.Reinitialise(rounds=rounds, reason=reason))
    return replace(session, clients={**session.clients, **rounds})


def _drain(session: Session, event: messages.Drain, out: list[Effect]) -> Session:
    fields = {"reason": event.reason, "seconds": event.reconnect_after_seconds}
    out.append(effects.Note(event="drained", fields=fields))
    session = work.abandon(session, out)
    return _hang_up(session, max(0.0, event.reconnect_after_seconds), out)


def _run_changed(session: Session, event: messages.RunChanged, out: list[Effect]) -> Session:
    out.append(effects.Note(event="run_changed", fields={"reason": event.reason, "finished": event.finished}))
    session = work.abandon(session, out)
    # A finished run's coordinator still serves evaluations; a replaced one is learned from a new welcome.
    return session if event.finished else _hang_up(session, 0.0, out)


def _stop(session: Session, _: events.StopRequested, out: list[Effect]) -> Session:
    if session.stopped:
        return session
    session = _stop_job(_offline(work.abandon(session, out), out), out)
    out.append(effects.CloseLink())
    return replace(session, stopped=True, evaluations=())


def _stop_job(session: Session, out: list[Effect]) -> Session:
    if session.job is None or session.job.stopping:
        return session
    out.append(effects.StopTraining())
    return replace(session, job=replace(session.job, stopping=True))


def _upload_ended(session: Session, event: events.UploadEnded, out: list[Effect]) -> Session:
    if not uploading.is_unclear(session, event):
        return uploading.upload_ended(session, event, out)
    fields = {"reason": event.verdict.reason, "detail": event.verdict.detail}
    out.append(effects.Note(event="upload_unclear", level="warning", fields=fields))
    return _hang_up(session, 0.0, out)


# --------------------------------------------------------------------------------------------------- commits


def _committed(session: Session, event: messages.Committed, out: list[Effect]) -> Session:
    wrong = contradiction(session.newest, event.version)
    if wrong:
        raise CoordinatorFault(f"a commit that cannot be: {wrong}")
    seen, session = session.newest, replace(session, newest=event.version.name)
    _remember(session, seen, session.level, out)
    session, lost = apply_commit(session, event, out)
    session = _reinitialise(session, dict.fromkeys(lost, event.round), "state_lost", out)
    current = session.work
    if current is not None and current.train.base.name != event.version.name:
        session = work.abandon(session, out)
    return session


# ----------------------------------------------------------------------------------------------- evaluations


def _evaluate(session: Session, event: messages.Evaluate, out: list[Effect]) -> Session:
    if event.clients and (session.level != secagg_client.OFF or session.privacy is not None):
        # What clients score on their own images says something of single clients, for any version they are asked about.
        said = "the run protects single clients, and measures of theirs would leave this host as they are"
        fields = {"version": event.version.number, "detail": said}
        out.append(effects.Note(event="client_evaluation_refused", level="warning", fields=fields))
        refused = messages.EvaluationDone(version=event.version.number, error="not_in_the_clear", clients=())
        out.append(effects.Send(message=refused))
        return session
    waiting = (*session.evaluations, event)
    if len(waiting) > MAX_EVALUATIONS:
        oldest, *rest = waiting
        superseded = messages.EvaluationDone(
            version=oldest.version.number, error="superseded", clients=() if oldest.clients else None
        )
        out.append(effects.Send(message=superseded))
        waiting = tuple(rest)
    return replace(session, evaluations=waiting)


def _evaluation_ended(session: Session, event: events.EvaluationEnded, out: list[Effect]) -> Session:
    job = session.job
    if job is None or job.version != event.version:
        return session
    if event.lost:
        return session if job.stopping else replace(session, job=None)
    level = "error" if event.error else "info"
    fields: dict[str, object] = {"version": event.version, "error": event.error}
    if event.clients is not None:
        fields["clients"] = len(event.clients)
    out.append(effects.Note(event="evaluated", level=level, fields=fields))
    said = ": ".join(public(event.reason)) if event.error else ""
    done = messages.EvaluationDone(
        version=event.version, values=event.values, error=said, clients=event.clients
    )
    if session.link is Link.ATTENDING:
        out.append(effects.Send(message=done))
    else:
        session = replace(session, unsent=(*session.unsent, done)[-MAX_EVALUATIONS:])
    return session if job.stopping else replace(session, job=None)


_HANDLERS: dict[type, Callable[[Session, Any, list[Effect]], Session]] = {
    events.DialDue: _dial,
    events.LinkLost: _link_lost,
    events.Welcomed: _welcomed,
    events.Prepared: work.prepared,
    events.PrepareFailed: work.prepare_failed,
    events.ClientTrained: work.client_trained,
    events.FoldWritten: work.fold_written,
    events.TogetherEnded: work.together_ended,
    events.ClientFailed: work.client_failed,
    events.TrainingStopped: work.training_stopped,
    events.UploadEnded: _upload_ended,
    events.UploadLeftOut: uploading.upload_left_out,
    events.UploadBroken: uploading.upload_broken,
    events.UploadDue: work.upload_due,
    events.EvaluationEnded: _evaluation_ended,
    events.StopRequested: _stop,
    messages.Train: work.train,
    messages.Flush: work.flush,
    messages.Evaluate: _evaluate,
    messages.Cancel: work.cancel,
    messages.Drain: _drain,
    messages.Committed: _committed,
    messages.RunChanged: _run_changed,
    messages.SecureMessage: secagg_client.received,
    events.SecureHeard: secagg_client.heard,
    events.SecureUnreadable: secagg_client.unreadable,
    events.SecureAnswered: secagg_client.answered,
    events.SecureRefused: secagg_client.refused,
    events.SecureNotBegun: secagg_client.not_begun,
}
