"""What the round machine goes through, as spans. Pure; decides nothing; time is an argument (Unix nanoseconds).

    round                                  one attempt, from its opening to its commit or its end
    ├─ training, unmasking, committing …   its phases, in the machine's own words
    │  ├─ client_task                      from the first time a client is asked to its acceptance (of training)
    │  └─ open_sum, server_hook, …         what the driver does in between (of committing)
    └─ secure.offered, secure.uploading …  phases of secure aggregation, which do not end with those of the machine

Ids derive from run, round and attempt (`ssd.daemon.tracing.context`). An attempt that goes on after a restart goes on in the
same trace; of what the process before had already sent, such as an accepted client, a second span under the same id may follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from coordinator.core import effects, events
from coordinator.core.effects import Effect
from coordinator.core.events import Event
from coordinator.core.state import Attempt, Phase, RunState
from ssd.daemon.tracing.context import (
    SpanContext,
    attempt_context,
    client_context,
    is_sampled,
    parse_traceparent,
    phase_context,
)
from ssd.daemon.tracing.spans import OpenSpan, Span, Value
from ssd_wire.uploads import UploadFate

ACCEPTED, FAILED, REVOKED, UNFINISHED = "accepted", "failed", "revoked", "unfinished"
"""How a client's task ended."""
_COLLECTING = (Phase.TRAINING, Phase.HALTED)
"""Phases in which uploads are taken in."""
REMEMBERED = 2
"""Attempts whose late calls still find their trace: the present one and the one before."""


class _Task:
    """A client that was asked."""

    __slots__ = ("failed", "span", "worker")

    def __init__(self, span: OpenSpan, worker: str) -> None:
        self.span = span
        self.worker = worker
        self.failed = ""


class _Attempt:
    """One under way."""

    __slots__ = ("attempt", "entered", "phase", "root", "round", "secure", "tasks")

    def __init__(self, root: OpenSpan, phase: OpenSpan, attempt: Attempt) -> None:
        self.root = root
        self.phase = phase
        self.round = attempt.round
        self.attempt = attempt.number
        self.entered: dict[Phase, int] = {}
        self.tasks: dict[str, _Task] = {}
        self.secure: OpenSpan | None = None


class RoundSpans:
    """Follows the machine step by step.

    Args:
        run_id: of the run.
        share: of the attempts, 0 to 1, that are traced.
    """

    def __init__(self, run_id: str, share: float) -> None:
        self._run_id = run_id
        self._share = share
        self._open: _Attempt | None = None
        self._roots: deque[tuple[tuple[int, int], SpanContext]] = deque(maxlen=REMEMBERED)

    # -------------------------------------------------------------------------------------- the round machine

    def resumed(self, state: RunState, opened_at: int, now: int) -> None:
        """An attempt goes on that another process opened at `opened_at`."""
        if state.attempt is not None:
            self._begin(state, state.attempt, opened_at)
            if self._open is not None:
                self._open.root.note("coordinator_restarted", now)

    def stepped(
        self, before: RunState, event: Event, after: RunState, todo: Sequence[Effect], now: int
    ) -> list[Span]:
        """One step of the machine, before its effects are carried out; the spans that ended with it."""
        out: list[Span] = []
        if self._open is not None:
            self._heard(self._open, event, after, todo, now, out)
            if _key(after.attempt) != (self._open.round, self._open.attempt):
                self._finish(self._open, before, event, todo, now, out)
                self._open = None
            elif after.phase is not before.phase:
                if after.phase not in _COLLECTING:
                    self._close_tasks(self._open, now, out)
                if after.phase is Phase.COMMITTING:
                    self._end_secure(self._open, now, out)
                out.append(self._open.phase.end(now))
                self._enter(self._open, after.phase, now)
        if after.attempt is not None and _key(after.attempt) != _key(before.attempt):
            self._begin(after, after.attempt, now)
        if self._open is not None:
            self._asked(self._open, todo, now)
        return out

    def _begin(self, state: RunState, attempt: Attempt, now: int) -> None:
        root = attempt_context(self._run_id, attempt.round, attempt.number)
        if not is_sampled(root.trace_id, self._share):
            return
        self._roots.append(((attempt.round, attempt.number), root))
        facts: dict[str, Value] = {
            "ssd.run": self._run_id,
            "ssd.round": attempt.round,
            "ssd.attempt": attempt.number,
            "ssd.mode": state.policy.mode.value,
            "ssd.cohort": len(attempt.cohort),
        }
        span = OpenSpan("round", root, None, now, attributes=facts)
        first = OpenSpan(state.phase.value, phase_context(root, state.phase.value), root, now)
        self._open = _Attempt(span, first, attempt)
        self._open.entered[state.phase] = 1

    def _finish(
        self,
        held: _Attempt,
        before: RunState,
        event: Event,
        todo: Sequence[Effect],
        now: int,
        out: list[Span],
    ) -> None:
        self._close_tasks(held, now, out)
        out.append(held.phase.end(now))
        self._end_secure(held, now, out)
        ended = [each for each in todo if isinstance(each, effects.AbandonAttempt)]
        reason = ended[0].reason if ended else ""
        accepted = 0 if before.attempt is None else len(before.attempt.accepted)
        if isinstance(event, events.VersionCommitted):
            held.root.say({"ssd.version": event.version})
        outcome = "abandoned" if ended else "committed"
        held.root.say({"ssd.outcome": outcome, "ssd.accepted": accepted})
        out.append(held.root.end(now, error=reason))

    @staticmethod
    def _close_tasks(held: _Attempt, now: int, out: list[Span]) -> None:
        """Nothing more is taken in."""
        for task in held.tasks.values():
            task.span.say({"ssd.outcome": FAILED if task.failed else UNFINISHED})
            out.append(task.span.end(now, error=task.failed))
        held.tasks.clear()

    @staticmethod
    def _enter(held: _Attempt, phase: Phase, now: int) -> None:
        root, times = held.root.context, held.entered.get(phase, 0)
        held.entered[phase] = times + 1
        held.phase = OpenSpan(phase.value, phase_context(root, phase.value, times), root, now)

    def _asked(self, held: _Attempt, todo: Sequence[Effect], now: int) -> None:
        for effect in todo:
            if not isinstance(effect, effects.SendTrain):
                continue
            for client in effect.clients:
                if client not in held.tasks:
                    context = client_context(held.root.context, client)
                    facts: dict[str, Value] = {"ssd.client": client}
                    span = OpenSpan("client_task", context, held.phase.context, now, attributes=facts)
                    held.tasks[client] = _Task(span, effect.worker)
                task = held.tasks[client]
                task.worker, task.failed = effect.worker, ""
                task.span.say({"ssd.worker": effect.worker})
                task.span.note("asked", now, {"ssd.worker": effect.worker})

    def _heard(
        self,
        held: _Attempt,
        event: Event,
        after: RunState,
        todo: Sequence[Effect],
        now: int,
        out: list[Span],
    ) -> None:
        """What an event means for single clients."""
        match event:
            case events.UploadVerified():
                if any(isinstance(each, effects.FoldUpload) for each in todo):
                    self._end(held, event.clients, ACCEPTED, now, out)
                    return
                answers = [each for each in todo if isinstance(each, effects.AnswerUpload)]
                for answer in answers:
                    fate = "discarded" if answer.fate is UploadFate.DISCARDED else "rejected"
                    self._note(held, event.worker, event.clients, fate, answer.reason, now)
            case events.ClientFailed():
                named = event.clients or tuple(
                    client for client, task in held.tasks.items() if task.worker == event.worker
                )
                if (event.round, event.attempt) == (held.round, held.attempt):
                    self._note(held, event.worker, named, FAILED, event.reason, now)
                    for client in named:
                        if client in held.tasks and held.tasks[client].worker == event.worker:
                            held.tasks[client].failed = event.reason or FAILED
            case events.ClientRevoked():
                # In a journaled set a revoked client stays.
                if after.attempt is not None and not after.attempt.invites(event.client):
                    self._end(held, (event.client,), REVOKED, now, out)
            case events.WorkerDetached():
                left = tuple(client for client, task in held.tasks.items() if task.worker == event.worker)
                self._note(held, event.worker, left, "worker_detached", "", now)

    @staticmethod
    def _note(held: _Attempt, worker: str, clients: Sequence[str], what: str, reason: str, now: int) -> None:
        """Only of whom this worker was asked: nobody writes into others' spans."""
        facts: Mapping[str, Value] = {"ssd.reason": reason} if reason else {}
        for client in clients:
            task = held.tasks.get(client)
            if task is not None and task.worker == worker:
                task.span.note(what, now, facts)

    @staticmethod
    def _end(held: _Attempt, clients: Sequence[str], outcome: str, now: int, out: list[Span]) -> None:
        for client in clients:
            task = held.tasks.pop(client, None)
            if task is not None:
                task.span.say({"ssd.outcome": outcome})
                out.append(task.span.end(now))

    # ------------------------------------------------------------------------------------ secure aggregation

    def secure_phase(self, round_number: int, attempt: int, phase: str, now: int) -> list[Span]:
        """Secure aggregation came into another phase; "" before its first and after its last."""
        held = self._open
        if held is None or (held.round, held.attempt) != (round_number, attempt):
            return []
        out: list[Span] = []
        self._end_secure(held, now, out)
        if phase:
            root = held.root.context
            held.secure = OpenSpan(f"secure.{phase}", root.derived("secure", phase), root, now)
        return out

    @staticmethod
    def _end_secure(held: _Attempt, now: int, out: list[Span]) -> None:
        if held.secure is not None:
            out.append(held.secure.end(now))
            held.secure = None

    # ---------------------------------------------------------------------------------------- what hangs below

    @property
    def phase(self) -> SpanContext | None:
        """Under which the driver's own work belongs now; None: it is not traced."""
        return None if self._open is None else self._open.phase.context

    def training(self, round_number: int, attempt: int) -> SpanContext | None:
        """Under which an upload for this attempt belongs; None: that is not traced, or long over."""
        for key, root in self._roots:
            if key == (round_number, attempt):
                return phase_context(root, Phase.TRAINING.value)
        return None

    def caller(self, value: object) -> SpanContext | None:
        """The span a caller's `traceparent` names, if it is one of a trace that is being recorded here.

        Nobody can make this coordinator write into any other trace.
        """
        told = parse_traceparent(value)
        if told is None or all(told.trace_id != root.trace_id for _, root in self._roots):
            return None
        return told


def _key(attempt: Attempt | None) -> tuple[int, int] | None:
    return None if attempt is None else (attempt.round, attempt.number)
