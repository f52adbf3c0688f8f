"""Whether traces can be sent as configured. Without a collector rounds go on; without the packages the daemon does not start."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ssd.daemon.config_loading import TracingSection
from ssd.daemon.doctor.findings import Finding, fault, ok, warning
from ssd.daemon.doctor.network import ReachFacts, reach
from ssd.daemon.tracing.setup import INSTALL, TracingUnavailable, read_roots
from ssd.trust.diagnosis import Peer

PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter")


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectorFacts:
    """What is known of a collector and the way to it."""

    endpoint: str
    missing: str = ""
    """A package that is not installed."""
    roots: str = ""
    """What is wrong with the file of root certificates."""
    reached: ReachFacts | None = None
    """None: it was not tried."""


def examine_collector(section: TracingSection, patience: float) -> Iterator[Finding]:
    """Finding `tracing`, if it is on; `patience` is seconds for one check."""
    yield from judge_collector(gather_collector(section.endpoint, section.root_certificates, patience))


def gather_collector(endpoint: str, root_certificates: Path | None, patience: float) -> CollectorFacts | None:
    """Looks for the packages and connects; None: tracing is off.

    Args:
        endpoint: of the configuration, valid.
        root_certificates: of the configuration.
        patience: seconds.
    """
    if not endpoint:
        return None
    for name in PACKAGES:
        if not _is_installed(name):
            return CollectorFacts(endpoint=endpoint, missing=name)
    if root_certificates is not None:
        try:
            read_roots(root_certificates)
        except TracingUnavailable as error:
            return CollectorFacts(endpoint=endpoint, roots=str(error))
    parts = urlsplit(endpoint)
    peer = Peer(host=parts.hostname or "", port=parts.port or 0)
    return CollectorFacts(endpoint=endpoint, reached=reach(peer, patience))


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def judge_collector(facts: CollectorFacts | None) -> Iterator[Finding]:
    """Finding `tracing`, if it is on."""
    if facts is None:
        return
    if facts.missing:
        yield fault(
            "tracing",
            f"the package {facts.missing} is not installed",
            f"{INSTALL}, or leave [tracing] endpoint out",
        )
    elif facts.roots:
        yield fault("tracing", facts.roots, "correct [tracing] root_certificates")
    elif facts.reached is not None and (facts.reached.unresolved or facts.reached.failed):
        why = facts.reached.unresolved or facts.reached.failed
        yield warning(
            "tracing", f"no collector at {facts.endpoint}: {why}",
            "rounds go on without traces; start the collector, or correct [tracing] endpoint",
        )  # fmt: skip
    else:
        yield ok("tracing", f"something listens at {facts.endpoint}")
