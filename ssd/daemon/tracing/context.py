"""Which trace and span a piece of work belongs to: ids derived from names, and their form on the wire. Pure.

A trace is one attempt at a round. Its id, and those of the spans that others hang theirs under, are hashes of names:
a coordinator that was restarted goes on with the same trace, and a worker needs nobody to tell it where it belongs.
They are no secret and protect nothing.

The form on the wire is `traceparent` of the W3C Trace Context recommendation, version 00, sampled.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

TRACEPARENT = "traceparent"
"""Metadata key of a call."""
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_LENGTH = 55
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class SpanContext:
    """A span's place."""

    trace_id: str
    """32 hex digits, lower case."""
    span_id: str
    """16 hex digits, lower case."""

    def derived(self, *names: str) -> SpanContext:
        """A span of the same trace, by names that are unique in it."""
        return SpanContext(self.trace_id, _hash("span", self.trace_id, *names)[:16])


def attempt_context(run_id: str, round_number: int, attempt: int) -> SpanContext:
    """The root span of an attempt at a round."""
    trace_id = _hash("trace", run_id, str(round_number), str(attempt))[:32]
    return SpanContext(trace_id, _hash("span", trace_id)[:16])


def phase_context(root: SpanContext, phase: str, entered: int = 0) -> SpanContext:
    """A phase of the attempt.

    Args:
        root: of `attempt_context`.
        phase: its name.
        entered: how often the attempt was in this phase before.
    """
    return root.derived("phase", phase, *([str(entered)] if entered else []))


def client_context(root: SpanContext, client: str) -> SpanContext:
    """What a client was asked to do in the attempt."""
    return root.derived("client", client)


def is_sampled(trace_id: str, share: float) -> bool:
    """Whether a trace is among the share (0 to 1) that is recorded: whoever asks gets the same answer.

    A trace of a smaller share is among those of every larger one.
    """
    return int(trace_id[16:], 16) < share * (1 << 64)


def traceparent(context: SpanContext) -> str:
    """The value that makes `context` the parent of what the called side does."""
    return f"00-{context.trace_id}-{context.span_id}-0{_SAMPLED}"


def parse_traceparent(value: object) -> SpanContext | None:
    """What a `traceparent` says; None if it is not one, of another version, or not sampled."""
    if not isinstance(value, str) or len(value) != _LENGTH:
        return None
    found = _FORM.fullmatch(value)
    if found is None or not int(found[3], 16) & _SAMPLED or not int(found[1], 16) or not int(found[2], 16):
        return None
    return SpanContext(found[1], found[2])


def _hash(*names: str) -> str:
    # Each with its length before it: no two lists of names are one text.
    text = "".join(f"{len(name)}:{name}" for name in ("ssd tracing 1", *names))
    return hashlib.sha256(text.encode()).hexdigest()
