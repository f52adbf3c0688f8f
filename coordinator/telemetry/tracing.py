"""Spans of the coordinator's own work, as it happens. Off (`NoTracing`) it does nothing; the mapping itself is pure
(`coordinator.telemetry.round_spans`).

Everything here is called on the event loop, and what an exporter is given it takes without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from coordinator.core.effects import Effect
from coordinator.core.events import Event
from coordinator.core.state import RunState
from coordinator.errors import ClientFault
from coordinator.telemetry.round_spans import REMEMBERED, RoundSpans
from ssd.daemon.tracing.context import TRACEPARENT, SpanContext
from ssd.daemon.tracing.spans import Kind, OpenSpan, Span, Value

Metadata = Sequence[tuple[str, str | bytes]]
CALLS_PER_WORKER = 16
CALLS_PER_CLIENT = 8
"""Calls of one worker that become spans in one attempt: so many, and so many for each of its clients."""
_SERVICE = "ssd_proto.v1.Federation"


class Call(Protocol):
    """A data call under way."""

    def belongs_to(self, round_number: int, attempt: int) -> None:
        """Which attempt it is for, in case the caller did not say which span it belongs to."""
        ...

    def say(self, attributes: Mapping[str, Value]) -> None:
        """More that is known of it."""
        ...

    def failed(self, reason: str) -> None:
        """It came to nothing."""
        ...


class Tracing(Protocol):
    """Who is told what happens.

    Behaviour: nothing here waits, raises, or changes what the coordinator does.
    """

    def resumed(self, state: RunState, opened_at: float) -> None:
        """An attempt goes on that was opened, by a process before, at `opened_at` (Unix seconds)."""
        ...

    def stepped(self, before: RunState, event: Event, after: RunState, todo: Sequence[Effect]) -> None:
        """One step of the round machine, before its effects are carried out."""
        ...

    def secure_phase(self, round_number: int, attempt: int, phase: str) -> None:
        """Secure aggregation came into another phase."""
        ...

    def part(self, name: str) -> AbstractContextManager[None]:
        """A part of the phase under way; it is over when the context is left."""
        ...

    def call(self, method: str, worker: str, hosted: int, metadata: Metadata) -> AbstractContextManager[Call]:
        """A data call of a worker that hosts so many clients; it is over when the context is left."""
        ...


class _NoCall:
    def belongs_to(self, round_number: int, attempt: int) -> None:
        """Nothing."""

    def say(self, attributes: Mapping[str, Value]) -> None:
        """Nothing."""

    def failed(self, reason: str) -> None:
        """Nothing."""


_NO_CALL = _NoCall()


class NoTracing:
    """Nobody is told."""

    def resumed(self, state: RunState, opened_at: float) -> None:
        """Nothing."""

    def stepped(self, before: RunState, event: Event, after: RunState, todo: Sequence[Effect]) -> None:
        """Nothing."""

    def secure_phase(self, round_number: int, attempt: int, phase: str) -> None:
        """Nothing."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def call(self, method: str, worker: str, hosted: int, metadata: Metadata) -> AbstractContextManager[Call]:
        """Nothing."""
        return nullcontext(_NO_CALL)


class _Call:
    """A call whose place is known at its beginning, or told later."""

    def __init__(self, tracing: RoundTracing, method: str, worker: str, hosted: int, start: int) -> None:
        self._tracing = tracing
        self._method = method
        self._worker = worker
        self._hosted = hosted
        self._start = start
        self._error = ""
        self._attributes: dict[str, Value] = {}
        self.parent: SpanContext | None = None

    def belongs_to(self, round_number: int, attempt: int) -> None:
        """Counts where the caller named no span."""
        self._attributes |= {"ssd.round": round_number, "ssd.attempt": attempt}
        if self.parent is None:
            self.parent = self._tracing.spans.training(round_number, attempt)

    def say(self, attributes: Mapping[str, Value]) -> None:
        """Kept until the end."""
        self._attributes |= attributes

    def failed(self, reason: str) -> None:
        """The first reason is the span's error."""
        self._error = self._error or reason

    def end(self, now: int) -> None:
        """The span, if the call has a place."""
        if self.parent is None or not self._tracing.has_room(
            self._worker, self._hosted, self.parent.trace_id
        ):
            return
        facts = {
            "rpc.system.name": "grpc",
            "rpc.service": _SERVICE,
            "rpc.method": self._method,
            "ssd.worker": self._worker,
        }
        own = SpanContext(self.parent.trace_id, self._tracing.new_id())
        span = OpenSpan(
            f"{_SERVICE}/{self._method}",
            own,
            self.parent,
            self._start,
            kind=Kind.SERVER,
            attributes=facts | self._attributes,
        )
        self._tracing.emit(span.end(now, self._error))


class RoundTracing:
    """Makes spans and hands them over.

    Args:
        spans: what they are made by.
        emit: takes a span; neither waits nor raises.
        wall: Unix seconds.
        new_id: 16 hex digits, never the same again.
    """

    def __init__(
        self,
        spans: RoundSpans,
        emit: Callable[[Span], None],
        wall: Callable[[], float],
        new_id: Callable[[], str] = lambda: os.urandom(8).hex(),
    ) -> None:
        self.spans = spans
        self.emit = emit
        self.new_id = new_id
        self._wall = wall
        self._calls: dict[str, dict[str, int]] = {}
        """Trace -> worker -> calls so far."""

    def resumed(self, state: RunState, opened_at: float) -> None:
        """The trace goes on."""
        self.spans.resumed(state, _nanoseconds(opened_at), self._now())

    def stepped(self, before: RunState, event: Event, after: RunState, todo: Sequence[Effect]) -> None:
        """Hands over what ended."""
        for span in self.spans.stepped(before, event, after, todo, self._now()):
            self.emit(span)

    def secure_phase(self, round_number: int, attempt: int, phase: str) -> None:
        """Hands over the phase before."""
        for span in self.spans.secure_phase(round_number, attempt, phase, self._now()):
            self.emit(span)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A span under the phase it began in."""
        phase = self.spans.phase
        if phase is None:
            yield
            return
        span = OpenSpan(name, SpanContext(phase.trace_id, self.new_id()), phase, self._now())
        error = ""
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self.emit(span.end(self._now(), error))

    @contextmanager
    def call(self, method: str, worker: str, hosted: int, metadata: Metadata) -> Iterator[Call]:
        """A span under the one the caller names, or under the training phase of the attempt it is for."""
        call = _Call(self, method, worker, hosted, self._now())
        told = [value for key, value in metadata if key == TRACEPARENT]
        # Twice is once too often: nobody knows which is meant.
        call.parent = self.spans.caller(told[0]) if len(told) == 1 else None
        try:
            yield call
        except BaseException as raised:
            call.failed(raised.reason.value if isinstance(raised, ClientFault) else type(raised).__name__)
            raise
        finally:
            call.end(self._now())

    def has_room(self, worker: str, hosted: int, trace_id: str) -> bool:
        """Whether another call of this worker may become a span; counts it."""
        if trace_id not in self._calls:
            # Calls are only ever of an attempt that is remembered.
            self._calls = dict([*self._calls.items()][1 - REMEMBERED :])
            self._calls[trace_id] = {}
        calls = self._calls[trace_id]
        made = calls[worker] = calls.get(worker, 0) + 1
        return made <= CALLS_PER_WORKER + CALLS_PER_CLIENT * hosted

    def _now(self) -> int:
        return _nanoseconds(self._wall())


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
