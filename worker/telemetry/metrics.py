"""Every number the worker exports. Labels are bounded: never a client, a round or a host."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """The worker's collectors in a registry of their own."""

    def __init__(self, build: str) -> None:
        self.registry = CollectorRegistry()
        prefix, registry = "ssd_worker_", self.registry
        self.build_info = Gauge(
            f"{prefix}build_info", "Software build, always 1", ["build"], registry=registry
        )
        self.build_info.labels(build).set(1)
        self.training_seconds = Histogram(
            f"{prefix}training_seconds", "Time one client trained", buckets=_SECONDS, registry=registry
        )
        self.client_tasks = Counter(
            f"{prefix}client_tasks_total", "Client trainings that ended", ["outcome"], registry=registry
        )
        self.uploads = Counter(
            f"{prefix}uploads_total",
            "Uploads judged by the coordinator",
            ["fate", "reason"],
            registry=registry,
        )
        self.bytes = Counter(f"{prefix}bytes_total", "Body bytes moved", ["direction"], registry=registry)
        self.connected = Gauge(
            f"{prefix}connected", "1 while the control stream is attended", registry=registry
        )
        self.reconnects = Counter(
            f"{prefix}reconnects_total", "Control streams lost or refused", ["reason"], registry=registry
        )
        self.rollbacks_refused = Counter(
            f"{prefix}rollbacks_refused_total",
            "Coordinators refused because they offered an older or another history",
            registry=registry,
        )
        self.renewals = Counter(
            f"{prefix}certificate_renewals_total",
            "Tries to renew the certificate",
            ["outcome"],
            registry=registry,
        )
        self.certificate_end = Gauge(
            f"{prefix}certificate_expiry_timestamp_seconds",
            "When the certificate in use ends",
            registry=registry,
        )
        self.held_updates = Gauge(
            f"{prefix}held_updates", "Finished updates whose fate is open", registry=registry
        )
        self.hosted_clients = Gauge(f"{prefix}hosted_clients", "Clients of this worker", registry=registry)
        self.model_version = Gauge(
            f"{prefix}model_version", "Newest verified version on disk", registry=registry
        )
        self.reinitialised = Counter(
            f"{prefix}client_states_reinitialised_total", "Client states dropped by record", registry=registry
        )
        self.promoted = Counter(
            f"{prefix}client_states_promoted_total", "Pending client states made current", registry=registry
        )
        self.holds = Counter(
            f"{prefix}upload_holds_total", "Times the coordinator asked an upload to wait", registry=registry
        )
        self.prepare_seconds = Histogram(
            f"{prefix}prepare_seconds",
            "Time to get a task's base version",
            buckets=_SECONDS,
            registry=registry,
        )
        self.gpu_memory_bytes = Gauge(
            f"{prefix}gpu_memory_bytes", "Device memory reserved", registry=registry
        )
        self.busy_share = Gauge(
            f"{prefix}busy_share",
            "Share of the last interval the training process was busy",
            registry=registry,
        )
        self._add_secure_aggregation(prefix)

    def _add_secure_aggregation(self, prefix: str) -> None:
        """What a participant of secure aggregation counts."""
        registry = self.registry
        self.secure_rounds = Counter(
            f"{prefix}secure_aggregation_rounds_total",
            "Tries at opening a sum that ended, by how",
            ["outcome"],
            registry=registry,
        )
        self.secure_aborts = Counter(
            f"{prefix}secure_aggregation_aborts_total",
            "Tries refused here or aborted by the coordinator",
            ["outcome", "reason"],
            registry=registry,
        )
        self.secure_step_seconds = Histogram(
            f"{prefix}secure_aggregation_step_seconds",
            "Time a step of secure aggregation took this worker",
            ["step"],
            buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60),
            registry=registry,
        )

    def moved(self, direction: str, count: int) -> None:
        """Count body bytes: `up` or `down`."""
        self.bytes.labels(direction).inc(count)

    def render(self) -> bytes:
        """The text a scrape gets."""
        return generate_latest(self.registry)


KNOWN_REASONS = frozenset(
    {
        "accepted", "duplicate", "too_late", "not_needed", "stale_attempt", "wrong_base", "wrong_round", "wrong_task",
        "over_bound", "over_norm", "not_finite", "weight_out_of_range", "statistic_out_of_range", "corrupt_chunk",
        "truncated", "unavailable", "fenced", "silent", "draining", "worker_name_taken", "client_claimed",
        "client_unknown", "client_revoked", "no_session", "protocol_version", "bad_name", "identity_mismatch",
        "tls_version", "no_identity", "wrong_federation", "role", "revoked", "client_bound",
        "identity_unusable", "speaks_tls", "speaks_no_tls", "wrong_authority", "name_mismatch", "certificate_expired",
        "certificate_not_yet_valid", "certificate_not_accepted", "secure_aggregation_required", "wrong_sharers",
    }
)  # fmt: skip


def bounded(reason: str) -> str:
    """A label value out of a closed set, whatever the peer says."""
    return reason if reason in KNOWN_REASONS or not reason else "other"
