"""Spans of the worker's own work, as it happens. Off (`NoTracing`) it does nothing; the mapping itself is pure
(`worker.telemetry.task_spans`).

Everything here is called on the event loop, and what an exporter is given it takes without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from ssd.daemon.tracing.context import TRACEPARENT, SpanContext, traceparent
from ssd.daemon.tracing.spans import Kind, OpenSpan, Span, Value
from worker.core.effects import Effect
from worker.core.events import Event
from worker.errors import LinkBroken
from worker.telemetry.task_spans import TaskSpans

_SERVICE = "ssd_proto.v1.Federation"
Metadata = tuple[tuple[str, str], ...]


class Call(Protocol):
    """A data call under way."""

    @property
    def metadata(self) -> Metadata:
        """What the coordinator is told of where the call belongs."""
        ...

    def say(self, attributes: Mapping[str, Value]) -> None:
        """More that is known of it."""
        ...


class Tracing(Protocol):
    """Who is told what happens.

    Behaviour: nothing here waits, raises, or changes what the worker does.
    """

    def stepped(self, run_id: str, event: Event, todo: Sequence[Effect]) -> None:
        """One step of the session, before its effects are carried out."""
        ...

    @property
    def preparing(self) -> SpanContext | None:
        """Under which the fetches of the preparation belong."""
        ...

    @property
    def uploading(self) -> SpanContext | None:
        """Under which the calls of the upload belong."""
        ...

    def call(self, method: str, parent: SpanContext | None) -> AbstractContextManager[Call]:
        """A data call; it is over when the context is left. Without a parent it is not traced."""
        ...


class _NoCall:
    metadata: Metadata = ()

    def say(self, attributes: Mapping[str, Value]) -> None:
        """Nothing."""


_NO_CALL = _NoCall()


class NoTracing:
    """Nobody is told."""

    preparing: SpanContext | None = None
    uploading: SpanContext | None = None

    def stepped(self, run_id: str, event: Event, todo: Sequence[Effect]) -> None:
        """Nothing."""

    def call(self, method: str, parent: SpanContext | None) -> AbstractContextManager[Call]:
        """Nothing."""
        return nullcontext(_NO_CALL)


class _Call:
    def __init__(self, span: OpenSpan) -> None:
        self.metadata: Metadata = ((TRACEPARENT, traceparent(span.context)),)
        self.say = span.say


class TaskTracing:
    """Makes spans and hands them over.

    Args:
        share: of the attempts, 0 to 1, that are traced.
        emit: takes a span; neither waits nor raises.
        wall: Unix nanoseconds.
        new_id: 16 hex digits, never the same again.
    """

    def __init__(
        self,
        share: float,
        emit: Callable[[Span], None],
        wall: Callable[[], int],
        new_id: Callable[[], str] = lambda: os.urandom(8).hex(),
    ) -> None:
        self._spans = TaskSpans(share, new_id)
        self._emit = emit
        self._wall = wall
        self._new_id = new_id

    def stepped(self, run_id: str, event: Event, todo: Sequence[Effect]) -> None:
        """Hands over what ended."""
        for span in self._spans.stepped(run_id, event, todo, self._wall()):
            self._emit(span)

    @property
    def preparing(self) -> SpanContext | None:
        """Under which the fetches of the preparation belong."""
        return self._spans.preparing

    @property
    def uploading(self) -> SpanContext | None:
        """Under which the calls of the upload belong."""
        return self._spans.uploading

    @contextmanager
    def call(self, method: str, parent: SpanContext | None) -> Iterator[Call]:
        """A span, and its place for the coordinator."""
        if parent is None:
            yield _NO_CALL
            return
        facts: dict[str, Value] = {"rpc.system.name": "grpc", "rpc.service": _SERVICE, "rpc.method": method}
        own = SpanContext(parent.trace_id, self._new_id())
        span = OpenSpan(f"{_SERVICE}/{method}", own, parent, self._wall(), kind=Kind.CLIENT, attributes=facts)
        error = ""
        try:
            yield _Call(span)
        except BaseException as raised:
            error = raised.reason if isinstance(raised, LinkBroken) else type(raised).__name__
            raise
        finally:
            self._emit(span.end(self._wall(), error))
