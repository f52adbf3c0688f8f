"""Spans to a collector, over OTLP/gRPC. The one module that imports OpenTelemetry; import it late.

Rules it keeps:

- `emit` never waits and never raises: spans go into a queue of bounded length, and out of it on a thread, which also
  brings them into OpenTelemetry's form. While the
  collector is away the oldest of them are lost, and a library's warning says so.
- `close` ends within `CLOSE_SECONDS`, whatever the collector does.

What OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_COMPRESSION`, …) counts; the
endpoint and its certificates are arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from grpc import ssl_channel_credentials
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import SpanContext as OtelContext

from ssd.daemon.tracing.context import SpanContext
from ssd.daemon.tracing.spans import Kind, Span

QUEUE, BATCH = 8192, 512
"""Spans that wait at most, and that go together."""
DELAY_SECONDS = 2.0
"""How long a span may wait for company."""
CALL_SECONDS = 5.0
"""Patience with the collector, all tries together."""
CLOSE_SECONDS = 3.0
_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}


class OtlpExporter:
    """One daemon's way to the collector.

    Args:
        endpoint: `http://host:port` or `https://host:port`.
        root_certificates: PEM of who may vouch for the collector; None: whom gRPC trusts by itself.
        resource: who speaks: `service.name` and so on.
    """

    def __init__(self, endpoint: str, root_certificates: bytes | None, resource: Mapping[str, str]) -> None:
        insecure = endpoint.startswith("http:")
        collector = OTLPSpanExporter(
            endpoint=endpoint,
            insecure=insecure,
            credentials=None if insecure else ssl_channel_credentials(root_certificates),
            timeout=CALL_SECONDS,
        )
        self._exporter = _Translating(collector, Resource.create(dict(resource)))
        self._queue = BatchSpanProcessor(
            self._exporter,
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            schedule_delay_millis=DELAY_SECONDS * 1000,
        )

    def emit(self, span: Span) -> None:
        """Hand a span over."""
        self._queue.on_end(_Waiting(span))  # type: ignore[arg-type]  # the queue looks at its context only

    def close(self) -> None:
        """Send what waits, if that is quickly done, and end."""
        ending = threading.Thread(target=self._queue.shutdown, name="tracing-end", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            # Ends the waiting between tries and the call under way.
            self._exporter.shutdown()


class _Waiting:
    """A span in the queue, which asks whether it is sampled."""

    __slots__ = ("span",)
    context = OtelContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, span: Span) -> None:
        self.span = span


class _Translating(SpanExporter):
    """Translates on the queue's thread, so that the daemon's loop does not have to."""

    def __init__(self, collector: OTLPSpanExporter, resource: Resource) -> None:
        self._collector = collector
        self._resource = resource
        self._scope = InstrumentationScope("ssd-federated")

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """One call on the collector."""
        return self._collector.export([self._readable(each.span) for each in spans])

    def shutdown(self) -> None:
        """Ends the call under way, too."""
        self._collector.shutdown()

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_otel(span.context, remote=False),
            parent=None if span.parent is None else _otel(span.parent, remote=span.kind is Kind.SERVER),
            resource=self._resource,
            attributes=dict(span.attributes),
            events=[Event(each.name, dict(each.attributes), each.at) for each in span.events],
            links=[Link(_otel(each, remote=False)) for each in span.links],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )


def _otel(context: SpanContext, *, remote: bool) -> OtelContext:
    return OtelContext(
        trace_id=int(context.trace_id, 16),
        span_id=int(context.span_id, 16),
        is_remote=remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
