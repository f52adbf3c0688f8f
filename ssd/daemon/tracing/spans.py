"""A span as a plain record, bounded in every direction. Pure: time is an argument (Unix nanoseconds).

Attributes are ids, counts, sizes and outcomes. Text is cut, events and links are counted: what a stranger says
cannot make a span large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ssd.daemon.tracing.context import SpanContext

Value = str | int | float | bool
MOST_TEXT = 256
"""Characters of a text."""
MOST_EVENTS = 32
MOST_LINKS = 128


class Kind(Enum):
    """Which side of a call a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Event:
    """Something at one instant of a span."""

    name: str
    at: int
    attributes: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A piece of work that is over."""

    name: str
    context: SpanContext
    parent: SpanContext | None
    """None: the root of its trace."""
    start: int
    end: int
    kind: Kind = Kind.INTERNAL
    attributes: Mapping[str, Value]
    events: tuple[Event, ...] = ()
    links: tuple[SpanContext, ...] = ()
    error: str = ""
    """What went wrong; empty: nothing."""


class OpenSpan:
    """A piece of work under way.

    Args:
        name: of the kind of work.
        context: its own place.
        parent: the work it is part of; None: it is the whole.
        start: when it began.
        kind: which side of a call.
        links: other spans it serves.
        attributes: what is known at its beginning.
    """

    __slots__ = ("_attributes", "_events", "_kind", "_links", "_name", "_parent", "_start", "context")

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start: int,
        *,
        kind: Kind = Kind.INTERNAL,
        links: tuple[SpanContext, ...] = (),
        attributes: Mapping[str, Value] | None = None,
    ) -> None:
        self.context = context
        self._name = name
        self._parent = parent
        self._start = start
        self._kind = kind
        self._links = links[:MOST_LINKS]
        self._attributes = _bounded(attributes or {})
        self._events: list[Event] = []

    def say(self, attributes: Mapping[str, Value]) -> None:
        """More that is known of it."""
        self._attributes |= _bounded(attributes)

    def note(self, name: str, at: int, attributes: Mapping[str, Value] | None = None) -> None:
        """Something happened; of many things the first are kept."""
        if len(self._events) < MOST_EVENTS:
            self._events.append(Event(name, at, _bounded(attributes or {})))

    def end(self, at: int, error: str = "") -> Span:
        """The work is over."""
        return Span(
            name=self._name,
            context=self.context,
            parent=self._parent,
            start=self._start,
            # A wall clock may be set back meanwhile.
            end=max(at, self._start),
            kind=self._kind,
            attributes=self._attributes,
            events=tuple(self._events),
            links=self._links,
            error=error[:MOST_TEXT],
        )


def _bounded(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value[:MOST_TEXT] if isinstance(value, str) else value for key, value in attributes.items()}
