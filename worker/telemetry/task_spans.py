"""What a session goes through for a task, as spans. Pure; decides nothing; time and ids are arguments.

    training (the coordinator's)         the phase of the attempt
    ├─ prepare                           getting declaration, base version and artefacts
    ├─ train                             of clients that are trained together, linked to their tasks
    ├─ client_task (the coordinator's)   what a client was asked to do
    │  ├─ train                          in the training process
    │  └─ upload                         of this client alone
    └─ upload                            of the fold of several clients, linked to their tasks

The coordinator's spans are named by derivation (`ssd.daemon.tracing.context`): nothing has to be told. Under `prepare` and
`upload` hang the data calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssd.daemon.tracing.context import SpanContext, attempt_context, client_context, is_sampled, phase_context
from ssd.daemon.tracing.spans import OpenSpan, Span, Value
from ssd_wire.messages import Train
from ssd_wire.uploads import UploadFate
from worker.core import effects, events
from worker.core.effects import Effect
from worker.core.events import Event
from worker.core.public_reasons import public

TRAINING = "training"
"""The coordinator's word for the phase in which clients are asked."""
PREPARE, TRAIN, UPLOAD = "prepare", "train", "upload"
STOPPED = "stopped"
"""Why something ended that nobody wants any more."""


class TaskSpans:
    """Follows the session step by step.

    Args:
        share: of the attempts, 0 to 1, that are traced.
        new_id: 16 hex digits, never the same again.
    """

    def __init__(self, share: float, new_id: Callable[[], str]) -> None:
        self._share = share
        self._new_id = new_id
        self._open: dict[str, OpenSpan] = {}
        """By name: of each there is one at a time."""
        self._together = False
        """Whether what trains, or trained last, was several clients."""

    @property
    def preparing(self) -> SpanContext | None:
        """Under which the fetches of the preparation belong; None: not traced."""
        return self._context(PREPARE)

    @property
    def uploading(self) -> SpanContext | None:
        """Under which the calls of the upload belong; None: not traced."""
        return self._context(UPLOAD)

    def stepped(self, run_id: str, event: Event, todo: Sequence[Effect], now: int) -> list[Span]:
        """One step of the session, before its effects are carried out; the spans that ended with it.

        Args:
            run_id: that the session is of.
            event: what happened.
            todo: what follows from it.
            now: Unix nanoseconds.
        """
        out: list[Span] = []
        self._heard(event, now, out)
        for effect in todo:
            self._due(run_id, effect, now, out)
        return out

    def _heard(self, event: Event, now: int, out: list[Span]) -> None:
        match event:
            case events.Prepared() if event.key.task_digest:  # (an evaluation's preparation has none)
                self._end(PREPARE, now, out)
            case events.PrepareFailed():
                self._end(PREPARE, now, out, event.reason if event.retry else public(event.reason)[0])
            case events.ClientTrained():
                finished = event.finished
                # Not the weight: it is a number of images, which a masked upload hides.
                self._say(TRAIN, {"ssd.bytes": finished.body_size})
                self._end(TRAIN, now, out)
            case events.ClientFailed() if not self._together:
                self._end(TRAIN, now, out, public(event.reason)[0])
            case events.FoldWritten():
                self._say(TRAIN, {"ssd.bytes": event.finished[0].body_size})
            case events.TogetherEnded():
                self._end(TRAIN, now, out, "training_process_died" if event.died else "")
            case events.TrainingStopped():
                self._end(TRAIN, now, out, STOPPED)
            case events.UploadLeftOut():
                self._say(UPLOAD, {"ssd.left_out": len(event.failures)})
            case events.UploadEnded():
                verdict = event.verdict
                self._say(UPLOAD, {"ssd.outcome": verdict.fate.value})
                refused = "" if verdict.fate is UploadFate.ACCEPTED else verdict.reason
                self._end(UPLOAD, now, out, refused)
            case events.UploadBroken():
                self._end(UPLOAD, now, out, "session_ended")

    def _due(self, run_id: str, effect: Effect, now: int, out: list[Span]) -> None:
        match effect:
            case effects.Prepare():
                self._end(PREPARE, now, out, STOPPED)
                root = self._root(run_id, effect.train)
                if root is not None:
                    parent = phase_context(root, TRAINING)
                    facts = _facts(effect.train) | {"ssd.version": effect.train.base.number}
                    self._begin(PREPARE, parent, now, facts)
            case effects.StopPreparing():
                self._end(PREPARE, now, out, STOPPED)
            case effects.TrainTogether():
                self._end(TRAIN, now, out, STOPPED)
                self._together = True
                root = self._root(run_id, effect.train)
                if root is not None:
                    tasks = tuple(client_context(root, each.client) for each in effect.clients)
                    facts = _facts(effect.train) | {"ssd.clients": len(tasks)}
                    self._begin(TRAIN, phase_context(root, TRAINING), now, facts, tasks)
            case effects.TrainClient():
                self._end(TRAIN, now, out, STOPPED)
                self._together = False
                root = self._root(run_id, effect.train)
                if root is not None:
                    parent = client_context(root, effect.client.client)
                    facts = _facts(effect.train) | {"ssd.client": effect.client.client}
                    self._begin(TRAIN, parent, now, facts)
            case effects.StartUpload():
                self._end(UPLOAD, now, out, STOPPED)
                root = self._root(run_id, effect.train)
                if root is not None:
                    self._begin_upload(root, effect, now)
            case effects.StopUpload():
                self._end(UPLOAD, now, out, STOPPED)

    def _begin_upload(self, root: SpanContext, effect: effects.StartUpload, now: int) -> None:
        tasks = tuple(client_context(root, each.key.client) for each in effect.updates)
        facts = _facts(effect.train) | {
            "ssd.clients": len(tasks),
            "ssd.masked": bool(effect.secure_round),
        }
        if len(tasks) == 1:
            facts["ssd.client"] = effect.updates[0].key.client
            self._begin(UPLOAD, tasks[0], now, facts)
        else:
            self._begin(UPLOAD, phase_context(root, TRAINING), now, facts, tasks)

    def _begin(
        self,
        name: str,
        parent: SpanContext,
        now: int,
        facts: dict[str, Value],
        links: tuple[SpanContext, ...] = (),
    ) -> None:
        context = SpanContext(parent.trace_id, self._new_id())
        self._open[name] = OpenSpan(name, context, parent, now, links=links, attributes=facts)

    def _say(self, name: str, facts: dict[str, Value]) -> None:
        if name in self._open:
            self._open[name].say(facts)

    def _end(self, name: str, now: int, out: list[Span], error: str = "") -> None:
        span = self._open.pop(name, None)
        if span is not None:
            out.append(span.end(now, error))

    def _context(self, name: str) -> SpanContext | None:
        return self._open[name].context if name in self._open else None

    def _root(self, run_id: str, train: Train) -> SpanContext | None:
        root = attempt_context(run_id, train.round, train.attempt)
        return root if is_sampled(root.trace_id, self._share) else None


def _facts(train: Train) -> dict[str, Value]:
    return {"ssd.round": train.round, "ssd.attempt": train.attempt}
