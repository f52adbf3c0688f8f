"""A collector of traces: the TraceService of opentelemetry.proto on loopback, which keeps what it is sent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True, kw_only=True)
class Received:
    """A span as it arrived."""

    service: str
    instance: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    error: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    events: tuple[str, ...]


class Collector(TraceServiceServicer):
    """Listens from the beginning; `address` is where."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.spans: list[Received] = []
        self.raw = b""
        """Everything that came, one request after the other."""
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the RPC's name
        with self._lock:
            self.raw += request.SerializeToString()
            for of in request.resource_spans:
                who = _plain(of.resource.attributes)
                for scope in of.scope_spans:
                    self.spans += [_received(who, span) for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(0).wait()


def _received(who: dict[str, Any], span: Any) -> Received:
    return Received(
        service=who["service.name"],
        instance=who["service.instance.id"],
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        error=span.status.message,
        attributes=_plain(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        events=tuple(event.name for event in span.events),
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
