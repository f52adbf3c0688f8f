"""The task of the newest `Train`: preparing and training. Part of the session machine.

    Train --> UNPREPARED --Prepare--> PREPARING --> PREPARED: clients are trained, one after the other
                    ^-----session ended------'            |
                                               all finished, Flush or time is up --> worker.core.uploading

Several clients are given to the training process together: it trains one after the other, adds them up itself and
writes the fold down every few seconds (`FoldWritten`, each time in place of the file before). One by one they are
trained where single updates are what is needed: under secure aggregation, for a method that looks at them, when the
coordinator waits for what is finished, after a refused fold, and when the training process died of one of them.

The functions take the session, an event and the list of effects, which they add to.
"""

from __future__ import annotations

from dataclasses import replace

from ssd_wire import messages
from ssd_wire.messages import UpdateKey
from worker.core import effects, events
from worker.core.commits import drop
from worker.core.effects import Effect
from worker.core.finished import Finished
from worker.core.secagg_client import OFF
from worker.core.state import Job, Link, Session, Stage, Work
from worker.core.task import fail, fail_all, failure, untrained
from worker.core.uploading import upload_next, whole_folds
from worker.errors import CoordinatorFault


def dispatch(session: Session, out: list[Effect]) -> Session:
    """Give the idle training process, the idle upload and the missing preparation their next thing to do."""
    if session.stopped:
        return session
    session = whole_folds(session, out)
    session = _prepare(session, out)
    session = _train_next(session, out)
    return upload_next(session, out)


def _prepare(session: Session, out: list[Effect]) -> Session:
    current = session.work
    if current is None or not current.live or current.stage is not Stage.UNPREPARED or not untrained(session):
        return session
    out.append(effects.Prepare(train=current.train))
    return replace(session, work=replace(current, stage=Stage.PREPARING))


def _train_next(session: Session, out: list[Effect]) -> Session:
    on_clients = next((each for each in session.evaluations if each.clients), None)
    if session.job is not None:
        return _make_room(session, session.job, out) if on_clients is not None else session
    if on_clients is not None and session.link is Link.ATTENDING:
        # Before any of them is trained: what is measured is the state that belongs to the version.
        return _evaluate(session, on_clients, out)
    current = session.work
    waiting = untrained(session)
    if current is not None and current.stage is Stage.PREPARED and _together(session, current, waiting):
        out.append(effects.TrainTogether(train=current.train, clients=tuple(waiting)))
        together = frozenset(task.client for task in waiting)
        return replace(session, job=Job(key=current.train.key(""), together=together))
    if current is not None and current.stage is Stage.PREPARED and waiting:
        out.append(effects.TrainClient(train=current.train, client=waiting[0]))
        return replace(session, job=Job(key=current.train.key(waiting[0].client)))
    task_first = current is not None and current.live and bool(waiting)
    if session.evaluations and session.link is Link.ATTENDING and not task_first:
        return _evaluate(session, session.evaluations[0], out)
    return session


def _together(session: Session, work: Work, waiting: list[messages.TaskClient]) -> bool:
    """Whether clients may be added up where they are trained."""
    single = work.eager or work.singly or work.apart or session.individual_updates or session.level != OFF
    return session.adds_up and len(waiting) > 1 and not single


def _make_room(session: Session, job: Job, out: list[Effect]) -> Session:
    """Have clients that are trained together wait: an evaluation comes before the next of them."""
    if not job.together or session.link is not Link.ATTENDING:
        return session
    return _end_together(session, out)


def _end_together(session: Session, out: list[Effect]) -> Session:
    job = session.job
    if job is None or not job.together or job.ending or job.stopping:
        return session
    out.append(effects.EndTogether())
    return replace(session, job=replace(job, ending=True))


def _evaluate(session: Session, evaluate: messages.Evaluate, out: list[Effect]) -> Session:
    out.append(effects.RunEvaluation(evaluate=evaluate))
    rest = tuple(each for each in session.evaluations if each is not evaluate)
    return replace(session, evaluations=rest, job=Job(version=evaluate.version.number))


# ------------------------------------------------------------------------------------------------- messages


def train(session: Session, event: messages.Train, out: list[Effect]) -> Session:
    """The coordinator wants work, or wants it (again) in this session or attempt.

    Raises:
        CoordinatorFault: its digest is not that of what it says; see `ssd_wire.task_digest` for what that could give away.
    """
    if event.task_digest != event.computed_digest(session.run_id, session.declaration_digest):
        raise CoordinatorFault(f"the task of round {event.round} has a digest that does not fit what it says")
    strangers = [task.client for task in event.clients if task.client not in session.clients]
    out.extend(failure(event, client, "client_not_hosted") for client in strangers)
    event = replace(event, clients=tuple(task for task in event.clients if task.client not in strangers))
    if not event.clients:
        return session
    named = {task.client for task in event.clients}
    # Another task for the same round takes the place of the one before it.
    superseded = tuple(
        key
        for key in sorted(session.held)
        if key.client in named and key.round == event.round and key != event.key(key.client)
    )
    session = drop(session, superseded, "superseded", out)
    before = session.work
    if before is not None and before.train.same_work(event):
        session = replace(session, work=_adopt(before, event, out))
    else:
        session = replace(abandon(session, out), work=Work(train=event))
    if event.upload_within_seconds > 0:
        out.append(
            effects.ArmUploadTimer(
                round=event.round, attempt=event.attempt, seconds=event.upload_within_seconds
            )
        )
    fields = {"round": event.round, "attempt": event.attempt, "clients": len(event.clients)}
    out.append(effects.Note(event="task_received", fields=fields))
    if session.level != OFF:
        _say_what_is_finished(session, event, out)
    return _stop_unwanted(session, out)


def _say_what_is_finished(session: Session, task: messages.Train, out: list[Effect]) -> None:
    """A coordinator may begin the exchange of keys only when all is trained: what was said before may be lost."""
    held = [session.held.get(task.key(each.client)) for each in task.clients]
    out.extend(effects.Send(message=_finished_progress(task, done)) for done in held if done is not None)


def _adopt(before: Work, event: messages.Train, out: list[Effect]) -> Work:
    """The same work again: keep what is going on, take the new envelope."""
    named = {task.client for task in event.clients}
    if before.train.attempt != event.attempt:
        if before.upload is not None and before.upload.active:
            out.append(effects.StopUpload())
        return Work(train=event, stage=before.stage)
    if before.live:
        # Asked again in one session: a retry of failed clients, or clients that joined; the rest still stands.
        kept = tuple(task for task in before.train.clients if task.client not in named)
        event = replace(event, clients=(*kept, *event.clients))
    return replace(
        before,
        train=event,
        live=True,
        failed=before.failed - named,
        settled=before.settled - named,
    )


def _stop_unwanted(session: Session, out: list[Effect]) -> Session:
    """Stop the training process if the client it trains is not part of the work."""
    job = session.job
    if job is None or job.key is None or job.stopping:
        return session
    current = session.work
    if (
        current is not None
        and current.train.key("") == replace(job.key, client="")
        and _wanted(session, job, current)
    ):
        return session
    out.append(effects.StopTraining())
    return replace(session, job=replace(job, stopping=True))


def _wanted(session: Session, job: Job, work: Work) -> bool:
    """Whether the task still has the job's client; of clients that are trained together, all that are not finished."""
    if not job.together:
        return job.key is not None and job.key.client in work.clients
    finished = {key.client for key in session.held if key == work.train.key(key.client)}
    return job.together - finished - work.failed <= set(work.clients)


def flush(session: Session, event: messages.Flush, out: list[Effect]) -> Session:
    """Upload what is finished now."""
    return _hurry(session, event.round, event.attempt, out)


def upload_due(session: Session, event: events.UploadDue, out: list[Effect]) -> Session:
    """The time of the attempt is up."""
    return _hurry(session, event.round, event.attempt, out)


def _hurry(session: Session, round_number: int, attempt: int, out: list[Effect]) -> Session:
    if not _is_current(session, round_number, attempt):
        return session
    current = session.work
    assert current is not None  # _is_current answers for it
    session = _end_together(session, out)
    return replace(session, work=replace(current, eager=True))


def cancel(session: Session, event: messages.Cancel, out: list[Effect]) -> Session:
    """Stop the attempt's task; what is finished stays."""
    if not _is_current(session, event.round, event.attempt):
        return session
    fields = {"round": event.round, "attempt": event.attempt, "reason": event.reason}
    out.append(effects.Note(event="task_cancelled", fields=fields))
    return abandon(session, out)


def _is_current(session: Session, round_number: int, attempt: int) -> bool:
    current = session.work
    return current is not None and (current.train.round, current.train.attempt) == (round_number, attempt)


def abandon(session: Session, out: list[Effect]) -> Session:
    """Let go of the work, if there is any; finished updates stay."""
    current = session.work
    if current is None:
        return session
    if current.stage is Stage.PREPARING:
        out.append(effects.StopPreparing())
    if current.upload is not None and current.upload.active:
        out.append(effects.StopUpload())
    return _stop_unwanted(replace(session, work=None), out)


def rejoin(session: Session, welcome: messages.Welcome, out: list[Effect]) -> Session:
    """A new session of the same run: verdicts of the old one no longer count, the task has to be asked for again."""
    out.extend(effects.Send(message=done) for done in session.unsent)
    session = replace(session, unsent=())
    current = session.work
    if current is None:
        return session
    if current.train.base.name != welcome.version.name:
        return abandon(session, out)
    return replace(session, work=replace(current, delivered=frozenset(), live=False))


# -------------------------------------------------------------------------------------------------- results


def prepared(session: Session, event: events.Prepared, out: list[Effect]) -> Session:
    """A base version is here, verified."""
    versions = {**session.versions, event.number: event.key.base_digest}
    current = session.work
    in_use = {event.number, -1 if current is None else current.train.base.number, _job_version(session)}
    surplus = [number for number in sorted(versions) if number not in in_use]
    surplus = surplus[: max(0, len(versions) - session.max_versions)]
    if surplus:
        out.append(effects.DropVersions(model_digests=tuple(versions.pop(number) for number in surplus)))
    session = replace(session, versions=versions)
    if session.link is Link.ATTENDING:
        held = messages.VersionHeld(number=event.number, model_digest=event.key.base_digest)
        out.append(effects.Send(message=held))
    if current is None or current.train.key("") != event.key:
        return session
    return replace(session, work=replace(current, stage=Stage.PREPARED))


def _job_version(session: Session) -> int:
    """The version the training process reads now; -1 for none."""
    job = session.job
    if job is None:
        return -1
    if job.key is not None:
        return job.key.round - 1
    return -1 if job.version is None else job.version


def prepare_failed(session: Session, event: events.PrepareFailed, out: list[Effect]) -> Session:
    """The base version cannot be had, now or at all."""
    current = session.work
    if current is None or current.train.key("") != event.key:
        return session
    if event.retry:
        # Asked for again by the Train of the next session; see `live`.
        return replace(session, work=replace(current, stage=Stage.UNPREPARED, live=False))
    return fail_all(
        replace(session, work=replace(current, stage=Stage.UNPREPARED)), event.reason, event.detail, out
    )


def client_trained(session: Session, event: events.ClientTrained, out: list[Effect]) -> Session:
    """A client's files are written: keep them if their base is still the newest, else forget them."""
    finished = event.finished
    key = finished.key
    ours = session.job is not None and session.job.key == key
    session = _job_done(session, key)
    fresh = key.client in session.clients and session.clients[key.client] < key.round
    fresh = fresh and (key.round - 1, key.base_digest) == session.newest
    if not ours or not fresh or key in session.held or _is_superseded(session, key):
        out.append(effects.ForgetFiles(finished=(finished,)))
        return session
    session = replace(session, held={**session.held, key: finished})
    current = session.work
    # The next client trains while this one's update is written down.
    if current is not None and not session.stopped:
        session = _train_next(session, out)
    out.append(effects.KeepUpdate(finished=finished))
    if current is not None and session.link is Link.ATTENDING and current.train.key(key.client) == key:
        out.append(effects.Send(message=_finished_progress(current.train, finished)))
    return session


def fold_written(session: Session, event: events.FoldWritten, out: list[Effect]) -> Session:
    """The fold of clients that are trained together is written: keep those in it that are still wanted."""
    job = session.job
    ours = job is not None and job.key == event.key and bool(job.together)
    ours = ours and (event.key.round - 1, event.key.base_digest) == session.newest
    kept = {each.key: each for each in event.finished if ours and _is_fresh(session, event, each)}
    forgotten = tuple(each for each in event.finished if each.key not in {**session.held, **kept})
    if not kept:
        out.append(effects.ForgetFiles(finished=forgotten))
        return session
    assert job is not None  # it is ours
    newest = event.finished[0].fold
    session = replace(
        session, held={**session.held, **kept}, job=replace(job, fold="" if event.closed else newest)
    )
    out.append(effects.KeepFold(finished=tuple(kept.values()), added=event.added))
    if forgotten:
        out.append(effects.ForgetFiles(finished=forgotten))
    current = session.work
    if current is not None and session.link is Link.ATTENDING and current.train.key("") == event.key:
        new = (each for each in kept.values() if each.key.client in event.added)
        out.extend(effects.Send(message=_finished_progress(current.train, each)) for each in new)
    return session


def _is_fresh(session: Session, event: events.FoldWritten, finished: Finished) -> bool:
    """Whether a client in a written fold is still wanted.

    One that was let go of after an earlier file had it is not taken back: its state may have been given up, too.
    """
    key = finished.key
    if session.clients.get(key.client, key.round) >= key.round or _is_superseded(session, key):
        return False
    before = session.held.get(key)
    if key.client in event.added:
        return before is None
    return before is not None and before.fold == event.before


def together_ended(session: Session, event: events.TogetherEnded, out: list[Effect]) -> Session:
    """The clients that were trained together are through, or what is left of them has to be trained otherwise."""
    session = _job_done(session, event.key)
    current = session.work
    if event.died and current is not None and current.train.key("") == event.key:
        # The next time it is known whose training it was.
        fields = {"clients": len(untrained(session)), "detail": event.died}
        out.append(effects.Note(event="training_apart", level="warning", fields=fields))
        session = replace(session, work=replace(current, apart=True))
    return session


def _is_superseded(session: Session, key: UpdateKey) -> bool:
    """Whether another task for the same client and round has taken the place of the one that this update answers.

    Its training was told to stop and may finish all the same: of two updates of one round at most one is kept.
    """
    current = session.work
    if current is None or current.train.round != key.round or key.client not in current.clients:
        return False
    return current.train.key(key.client) != key


def client_failed(session: Session, event: events.ClientFailed, out: list[Effect]) -> Session:
    """A client cannot be trained here; the others go on."""
    session = _job_done(session, event.key)
    current = session.work
    if current is None or current.train.key(event.key.client) != event.key:
        return session
    if event.whole_task:
        return fail_all(session, event.reason, event.detail, out)
    if event.key.client not in current.clients:
        return session
    return fail(session, event.key.client, event.reason, event.detail, out)


def training_stopped(session: Session, _event: events.TrainingStopped, _out: list[Effect]) -> Session:
    """The training process is free again; a fold that it did not write down is lost."""
    return replace(session, job=None)


def _job_done(session: Session, key: UpdateKey) -> Session:
    job = session.job
    # A stopping job is over when the training process says it stopped, whatever it finished on the way.
    if job is None or job.key != key or job.stopping:
        return session
    return replace(session, job=None)


def _finished_progress(task: messages.Train, finished: Finished) -> messages.Progress:
    return messages.Progress(
        round=task.round,
        attempt=task.attempt,
        client=finished.key.client,
        step=1,
        steps=1,
        seconds=finished.seconds,
    )
