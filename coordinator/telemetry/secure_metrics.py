"""Metrics of secure aggregation: how long each phase took, who took part, and why attempts came to nothing."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from ssd.secagg.protocol.errors import AbortReason

_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class SecureMetrics:
    """All label values come from enums."""

    def __init__(
        self,
        counter: Callable[..., Counter],
        gauge: Callable[..., Gauge],
        histogram: Callable[..., Histogram],
    ) -> None:
        self._phases = histogram(
            "secure_aggregation_phase_duration_seconds",
            "Time each phase of secure aggregation took.",
            _BUCKETS,
            ("phase",),
        )
        self._stopped = counter(
            "secure_aggregation_aborts",
            "Attempts at a masked sum that were given up or got stuck, by reason.",
            ("reason",),
        )
        self._rejected = counter(
            "secure_aggregation_messages_rejected",
            "Messages of participants that were not taken, by reason.",
            ("reason",),
        )
        self._participants = gauge(
            "secure_aggregation_participants",
            "Workers of the present attempt at a masked sum, by how far they came.",
            ("state",),
        )
        for state in ("invited", "uploaded"):
            self._participants.labels(state).set(0)
        self._dropped = counter(
            "secure_aggregation_dropouts",
            "Participants whose masks had to be rebuilt because they did not upload.",
        )
        self._unmasked = histogram(
            "secure_aggregation_unmasking_seconds", "Rebuilding masks and taking them out of a sum.", _BUCKETS
        )

    def phase(self, name: str, seconds: float) -> None:
        """A phase is over."""
        self._phases.labels(name).observe(seconds)

    def stopped(self, reason: AbortReason) -> None:
        """An attempt came to nothing."""
        self._stopped.labels(reason.value).inc()

    def rejected(self, reason: AbortReason) -> None:
        """A message was not taken."""
        self._rejected.labels(reason.value).inc()

    def participants(self, *, invited: int, uploaded: int) -> None:
        """Who takes part now."""
        self._participants.labels("invited").set(invited)
        self._participants.labels("uploaded").set(uploaded)

    def opened(self, *, dropped: int, seconds: float) -> None:
        """A sum was opened."""
        self._dropped.inc(dropped)
        self._unmasked.observe(seconds)
