"""Every metric of the coordinator, in one class over its own registry.

Base units, `_total` on counters, and labels whose values are bounded: they come from enums or from a vocabulary
that stops growing. Never a client, a worker or a round number. Callers pass plain values; nothing else in the
coordinator knows Prometheus.
"""

from __future__ import annotations

import math
import platform
import re
import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from coordinator.core.state import Phase
from coordinator.errors import CoordinatorError, Reason
from coordinator.ports.figures import Figures, PrivacyCost, Quality
from coordinator.telemetry.secure_metrics import SecureMetrics
from ssd_wire.uploads import UploadFate

PREFIX = "ssd_coordinator_"
CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"
_VOCABULARY_LIMIT = 64
_WORD = re.compile(r"[a-z][a-z0-9_@.]{0,63}")
_ROUND_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_FAST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COUNTS = frozenset({"batches", "images"})
"""What methods count that is no loss term."""
_REPRESENTATION = ("alignment", "uniformity", "effective_rank")
"""What the names of representation measures begin with, after the split they were taken on."""


class Vocabulary:
    """Label values that come from a peer: well-formed words, the first so many of them, then `other`."""

    def __init__(self, known: Iterable[str] = (), limit: int = _VOCABULARY_LIMIT) -> None:
        self._known = set(known)
        self._room = limit
        self._lock = threading.Lock()

    def label(self, word: str) -> str:
        """`word` itself if it is known or still finds room, otherwise `other`."""
        with self._lock:
            if word in self._known:
                return word
            if self._room == 0 or _WORD.fullmatch(word) is None:
                return OTHER
            self._room -= 1
            self._known.add(word)
            return word


class CoordinatorMetrics:
    """All collectors. Methods may be called from any thread."""

    def __init__(self, build: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        # A `_created` gauge beside every counter doubles the page and says nothing build_info does not.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
        self.registry = CollectorRegistry(auto_describe=True)
        self._clock = clock
        self._measure: Callable[[], None] = lambda: None
        self._phase: str | None = None
        self._phase_since = clock()
        self._reasons = Vocabulary((reason.value for reason in Reason), limit=0)
        self._failures = Vocabulary(reason.value for reason in Reason)
        self._terms = Vocabulary()
        self._measures = Vocabulary()
        self._features = Vocabulary()
        self._create_rounds()
        self._create_traffic()
        self._create_model()
        self._create_process(build)
        self.secure = SecureMetrics(self._counter, self._gauge, self._histogram)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)

    def _create_rounds(self) -> None:
        self._rounds = self._counter("rounds", "Round attempts by outcome.", ("outcome",))
        for outcome in ("committed", "abandoned"):
            self._rounds.labels(outcome)
        self._round_seconds = self._histogram(
            "round_duration_seconds", "From opening an attempt to its commit.", _ROUND_BUCKETS
        )
        self._phase_seconds = self._histogram(
            "round_phase_duration_seconds", "Time spent in each phase.", _ROUND_BUCKETS, ("phase",)
        )
        self._overhead = self._histogram(
            "round_overhead_seconds", "Round wall time minus the slowest client's own work.", _FAST_BUCKETS
        )
        self._fold_seconds = self._histogram(
            "fold_duration_seconds", "Adding one verified upload.", _FAST_BUCKETS
        )
        self._journal_seconds = self._histogram(
            "journal_write_duration_seconds", "One durable write.", _FAST_BUCKETS
        )
        self._commit_seconds = self._histogram(
            "commit_duration_seconds", "From closing an attempt to the durable version.", _FAST_BUCKETS
        )
        self._storage_failures = self._counter(
            "storage_failures", "Writes to the state directory that failed."
        )
        self._phase_now = self._gauge("phase", "1 for the present phase, 0 for the others.", ("phase",))
        for phase in Phase:
            self._phase_now.labels(phase.value).set(0)
        self._waiting = self._gauge("waiting_for_clients", "Clients that a round cannot begin without.")
        self._heaviest = self._gauge(
            "heaviest_client_weight_ratio",
            "Share of the last round's weight that one client had; 0 below three clients and where weights are masked.",
        )
        self._cohort = self._gauge("cohort_clients", "Clients of the present attempt by state.", ("state",))

    def _create_traffic(self) -> None:
        self._updates = self._counter(
            "updates", "Uploads by fate and, unless accepted, reason.", ("fate", "reason")
        )
        for fate in UploadFate:
            self._updates.labels(fate.value, "")
        for reason in (Reason.TOO_LATE, Reason.STALE_ATTEMPT):
            # Alerts watch these: a rate does not see the sample that a series begins with.
            self._updates.labels(UploadFate.DISCARDED.value, reason.value)
        self._refused = self._counter(
            "messages_refused", "Calls and messages refused, by reason.", ("call", "reason")
        )
        self._issuing = self._counter(
            "certificate_requests", "Certificates asked for, by call and outcome.", ("call", "outcome")
        )
        self._throttled = self._counter(
            "messages_throttled",
            "Times a worker's control stream was left unread for a while because it was too fast.",
        )
        self._disagreements = self._counter(
            "evaluator_disagreements", "Versions whose evaluators measured different things."
        )
        self._doors = self._counter(
            "connections_cut", "Connections that made room for newer ones: too many at once.", ("port",)
        )
        for port in ("enrolment", "http"):
            self._doors.labels(port)
        self._bytes = self._counter("transfer_bytes", "Model and update bytes.", ("direction",))
        for direction in ("up", "down"):
            self._bytes.labels(direction)
        self._staging = self._gauge("staging_bytes", "Room taken by uploads in flight.", ("kind",))
        self._workers = self._gauge("connected_workers", "Workers attending.")
        self._connected = self._gauge("connected_clients", "Registered clients whose worker attends.")
        self._registered = self._gauge("registered_clients", "Registered clients that are not revoked.")
        self._reinitialisations = self._counter(
            "client_reinitialisations", "Clients whose state was declared lost and begins anew."
        )
        self._reloads = self._counter(
            "certificate_reloads", "Looks at changed certificate files, by outcome.", ("outcome",)
        )
        for outcome in ("taken", "kept_old"):
            self._reloads.labels(outcome)
        self._certificate_end = self._gauge(
            "certificate_expiry_timestamp_seconds", "When the certificate in use expires; 0 without TLS."
        )
        self._contradictions = self._counter(
            "history_contradictions", "Workers that remember a newer or another version than the journal has."
        )
        self._client_failures = self._counter(
            "client_failures", "Clients that failed in an attempt, by reason.", ("reason",)
        )

    def _create_model(self) -> None:
        self._version = self._gauge("model_version", "Number of the newest committed version.")
        self._committed_at = self._gauge("committed_timestamp_seconds", "Unix time of the last commit.")
        self._loss = self._gauge("loss", "Mean of each loss term in the last committed round.", ("term",))
        self._step_norm = self._gauge("step_norm", "L2 norm of the model's last step.")
        self._epsilon = self._gauge(
            "privacy_epsilon",
            "Differential privacy: epsilon of a round, and of all opened sums; not a number: none can be given.",
            ("scope",),
        )
        self._representation = self._gauge(
            "representation", "Representation quality of the last evaluated version.", ("measure",)
        )
        self._quality = self._gauge(
            "quality",
            "Representation quality on the clients' own images, from additive sums.",
            ("features", "measure"),
        )
        self._quality_version = self._gauge(
            "quality_version", "The version the clients' representation quality belongs to."
        )
        self._evaluation = self._gauge(
            "evaluation", "Everything measured on the last evaluated version.", ("measure",)
        )
        self._evaluated_version = self._gauge("evaluated_version", "The version the evaluation belongs to.")

    def _create_process(self, build: str) -> None:
        info = self._gauge("build_info", "Constant 1; what is running.", ("build", "python"))
        info.labels(build or "unknown", platform.python_version()).set(1)
        self._free = self._gauge("state_free_bytes", "Free space of the state directory's file system.")
        peak = self._gauge("memory_peak_bytes", "Largest resident size of the process so far.")
        peak.set_function(peak_memory_bytes)
        ProcessCollector(registry=self.registry)

    def round_committed(
        self,
        *,
        version: int,
        seconds: float,
        commit_seconds: float,
        overhead_seconds: float,
        figures: Figures,
        heaviest: float,
    ) -> None:
        """A round made `version`; durations in seconds, figures as recorded, the heaviest client's share of the weight."""
        self._rounds.labels("committed").inc()
        self._round_seconds.observe(seconds)
        self._commit_seconds.observe(commit_seconds)
        self._overhead.observe(overhead_seconds)
        self._heaviest.set(heaviest)
        self._committed_at.set_to_current_time()
        self.model(version, figures)

    def round_abandoned(self, seconds: float) -> None:
        """An attempt came to nothing after `seconds`."""
        del seconds  # the histogram of durations is about rounds that were committed
        self._rounds.labels("abandoned").inc()

    def model(self, version: int, figures: Figures) -> None:
        """The newest version and its figures; also called when the daemon starts on an existing run."""
        self._version.set(version)
        self._step_norm.set(0.0 if figures.cost is None else figures.cost.step_norm)
        for name, value in figures.losses.items():
            if name not in _COUNTS:
                self._loss.labels(self._terms.label(name)).set(value)
        self.privacy(figures.privacy)
        self.quality(figures.quality)

    def privacy(self, cost: PrivacyCost | None) -> None:
        """What all opened sums cost; None changes nothing."""
        if cost is not None:
            # Not a number: no epsilon can be given, which must not look like a small one.
            for scope, epsilon in (("round", cost.round_epsilon), ("total", cost.epsilon)):
                self._epsilon.labels(scope).set(math.nan if epsilon is None else epsilon)

    def quality(self, told: Quality | None) -> None:
        """What a round's clients told of the version it started from; None, as it did not measure: no change."""
        if told is None:
            return
        self._quality_version.set(told.version)
        # A measure that this cohort leaves undefined must not keep an older cohort's value.
        self._quality.clear()
        for name, value in told.measures.items():
            features, _, measure = name.partition("_")
            self._quality.labels(self._features.label(features), self._measures.label(measure)).set(value)

    def evaluation(self, version: int, values: Mapping[str, float]) -> None:
        """A version was measured. Values that are not finite are left out."""
        self._evaluated_version.set(version)
        for name, value in values.items():
            if not math.isfinite(value):
                continue
            label = self._measures.label(name)
            self._evaluation.labels(label).set(value)
            if any(part in name for part in _REPRESENTATION):
                self._representation.labels(label).set(value)

    def evaluators_disagreed(self) -> None:
        """The evaluators of a version do not agree on what it is worth."""
        self._disagreements.inc()

    def phase(self, phase: Phase) -> None:
        """The round machine is in `phase`; may be called as often as one likes."""
        if phase.value == self._phase:
            return
        now = self._clock()
        if self._phase is not None:
            self._phase_seconds.labels(self._phase).observe(now - self._phase_since)
            self._phase_now.labels(self._phase).set(0)
        self._phase, self._phase_since = phase.value, now
        self._phase_now.labels(phase.value).set(1)

    def waiting(self, clients: int) -> None:
        """How many clients a round still lacks to begin."""
        self._waiting.set(clients)

    def cohort(self, *, invited: int, accepted: int, failed: int) -> None:
        """The present attempt's clients; all 0 outside an attempt."""
        for state, count in (("invited", invited), ("accepted", accepted), ("failed", failed)):
            self._cohort.labels(state).set(count)

    def population(self, *, workers: int, connected: int, registered: int) -> None:
        """Who is attending, and how many clients there are."""
        self._workers.set(workers)
        self._connected.set(connected)
        self._registered.set(registered)

    def upload(self, fate: UploadFate, reason: str = "") -> None:
        """An upload met its fate."""
        self._updates.labels(fate.value, self._reasons.label(reason) if reason else "").inc()

    def refused(self, call: str, reason: str) -> None:
        """A call or message was refused. `call` is the name of an RPC, `reason` a `Reason` value."""
        self._refused.labels(call, self._reasons.label(reason)).inc()

    def certificate(self, not_after: float) -> None:
        """The certificate in use expires at this Unix time."""
        self._certificate_end.set(not_after)

    def certificate_reload(self, *, taken: bool) -> None:
        """Certificate files were looked at again."""
        self._reloads.labels("taken" if taken else "kept_old").inc()

    def certificate_request(self, call: str, outcome: str) -> None:
        """A certificate was asked for. `call` is `enroll` or `renew`, `outcome` an `enrolment.Outcome` value."""
        self._issuing.labels(call, outcome).inc()

    def throttled(self) -> None:
        """A worker sends faster than `limits.messages_per_second`."""
        self._throttled.inc()

    def connection_cut(self, port: str) -> None:
        """One too many. `port` is `enrolment` or `http`; of the main port gRPC counts nothing."""
        self._doors.labels(port).inc()

    def client_failed(self, reason: str) -> None:
        """A worker reported a failure; its reason is a stranger's word."""
        self._client_failures.labels(self._failures.label(reason)).inc()

    def client_reinitialised(self) -> None:
        """A client's state and the coordinator's record of it differ."""
        self._reinitialisations.inc()

    def history_contradicted(self) -> None:
        """A worker remembers what the journal does not."""
        self._contradictions.inc()

    def transferred(self, direction: str, nbytes: int) -> None:
        """Bytes of blobs (`down`) or uploads (`up`)."""
        self._bytes.labels(direction).inc(nbytes)

    def fold(self, seconds: float) -> None:
        """One upload was added to the sum."""
        self._fold_seconds.observe(seconds)

    def journal_write(self, seconds: float) -> None:
        """One durable write was made."""
        self._journal_seconds.observe(seconds)

    def storage_failure(self) -> None:
        """A durable write failed."""
        self._storage_failures.inc()

    def read_at_scrape(
        self,
        *,
        ram_used: Callable[[], int],
        disk_used: Callable[[], int],
        free_bytes: Callable[[], int],
    ) -> None:
        """Where to read the gauges nobody pushes; called on every scrape. A failing one reads as NaN."""
        self._staging.labels("ram").set_function(lambda: _read(ram_used))
        self._staging.labels("disk").set_function(lambda: _read(disk_used))
        self._free.set_function(lambda: _read(free_bytes))

    def before_scrape(self, measure: Callable[[], None]) -> None:
        """What brings the gauges up to date that follow from a run's state; called before every scrape."""
        self._measure = measure

    def render(self) -> bytes:
        """The exposition text, of type `CONTENT_TYPE`."""
        self._measure()
        return generate_latest(self.registry)


def _read(source: Callable[[], int]) -> float:
    try:
        return float(source())
    except CoordinatorError:
        # A broken disk must not take the page down that says so.
        return math.nan


def peak_memory_bytes() -> float:
    """Largest resident size of this process so far, bytes.

    Linux reports it as VmHWM, which unlike ru_maxrss is not inherited from the process that started us.
    """
    try:
        found = re.search(
            r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE
        )
    except OSError:
        found = None
    return float(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
