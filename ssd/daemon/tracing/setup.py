"""From a daemon's settings to a way out for spans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ssd.daemon.cli.extras import install
from ssd.daemon.tracing.spans import Span

INSTALL = install("tracing")


class Exporter(Protocol):
    """Where spans go.

    Behaviour: `emit` neither waits nor raises; `close` takes seconds at most, and nothing is emitted after it.
    """

    def emit(self, span: Span) -> None:
        """Hand a span over."""
        ...

    def close(self) -> None:
        """Send what waits, if that is quickly done, and end."""
        ...


class TracingUnavailable(Exception):
    """Spans cannot be sent as configured; the message says what to do."""


def check_endpoint(value: str) -> str:
    """The endpoint of a collector, or "" for none.

    Raises:
        ValueError: it is neither `http://host:port` nor `https://host:port`.
    """
    if not value:
        return value
    parts = urlsplit(value)
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port is None or not bare:
        raise ValueError(f"{value!r} is no collector: write http://host:4317 or https://host:4317")
    return value.rstrip("/")


def read_roots(path: Path) -> bytes:
    """PEM of who may vouch for the collector.

    Raises:
        TracingUnavailable: the file cannot be read, or holds none.
    """
    try:
        roots = path.read_bytes()
    except OSError as error:
        raise TracingUnavailable(f"[tracing] root_certificates: {path}: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in roots:
        raise TracingUnavailable(f"[tracing] root_certificates: {path} holds no PEM certificate")
    return roots


def open_exporter(endpoint: str, root_certificates: Path | None, resource: Mapping[str, str]) -> Exporter:
    """The exporter.

    Args:
        endpoint: as `check_endpoint` gives it, not empty.
        root_certificates: PEM file of who may vouch for the collector; None: whom gRPC trusts by itself.
        resource: who speaks.

    Raises:
        TracingUnavailable: the optional packages are missing, or the file cannot be used.
    """
    roots = None if root_certificates is None else read_roots(root_certificates)
    try:
        # Late: without tracing nobody pays for OpenTelemetry, and nobody needs to have it.
        from ssd.daemon.tracing.exporter import OtlpExporter
    except ImportError as error:
        raise TracingUnavailable(
            f"[tracing] endpoint: tracing needs the package {error.name}: {INSTALL}, or leave endpoint out"
        ) from error
    return OtlpExporter(endpoint, roots, resource)
