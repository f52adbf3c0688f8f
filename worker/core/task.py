"""Small parts about the task at hand that training and uploading share. Part of the session machine."""

from __future__ import annotations

from dataclasses import replace

from ssd_wire import messages
from ssd_wire.messages import TaskClient
from worker.core import effects
from worker.core.effects import Effect
from worker.core.public_reasons import public
from worker.core.state import Session


def untrained(session: Session) -> list[TaskClient]:
    """Clients of the task that are neither finished nor failed, nor settled in this attempt."""
    current = session.work
    if current is None:
        return []
    done = current.failed | current.settled | current.delivered
    return [
        task
        for task in current.train.clients
        if task.client not in done and current.train.key(task.client) not in session.held
    ]


def fail(session: Session, client: str, reason: str, detail: str, out: list[Effect]) -> Session:
    """Report that a client of the task cannot be trained."""
    current = session.work
    assert current is not None  # callers hold the work the client belongs to
    fields = {"client": client, "reason": reason, "detail": detail}
    out.append(effects.Note(event="client_failed", level="error", fields=fields))
    if current.live:
        out.append(failure(current.train, client, reason))
    return replace(session, work=replace(current, failed=current.failed | {client}))


def fail_all(session: Session, reason: str, detail: str, out: list[Effect]) -> Session:
    """Report that none of the clients that are left can be trained."""
    current = session.work
    assert current is not None  # callers hold the work
    left = frozenset(task.client for task in untrained(session))
    fields = {"clients": len(left), "reason": reason, "detail": detail}
    out.append(effects.Note(event="task_failed", level="error", fields=fields))
    if current.live:
        out.append(failure(current.train, "", reason))
    return replace(session, work=replace(current, failed=current.failed | left))


def failure(task: messages.Train, client: str, reason: str) -> Effect:
    """The report. It has the sentence of its reason; what happened in detail is for this worker's own log."""
    reason, sentence = public(reason)
    return effects.Send(
        message=messages.TaskFailed(
            round=task.round, attempt=task.attempt, client=client, reason=reason, detail=sentence
        )
    )
