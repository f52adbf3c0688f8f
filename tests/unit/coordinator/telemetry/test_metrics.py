"""Metrics: names, units, and labels that stay bounded whatever peers say."""

from __future__ import annotations

import math
import re

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from coordinator.core.state import Phase
from coordinator.errors import Reason, StorageFailed
from coordinator.ports.figures import Cost, Figures, PrivacyCost, Quality
from coordinator.telemetry.metrics import CoordinatorMetrics, Vocabulary, peak_memory_bytes
from ssd.secagg.protocol.errors import AbortReason
from ssd_wire.uploads import UploadFate

COST = Cost(clients=2, weight=3, step_norm=2.0, seconds=12.0, bytes_up=5, bytes_down=6)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> CoordinatorMetrics:
    return CoordinatorMetrics("test/1", clock=clock)


def families(metrics: CoordinatorMetrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def value(metrics: CoordinatorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ssd_coordinator_{name}", labels)


def exercise(metrics: CoordinatorMetrics) -> None:
    """Every method once."""
    for phase in Phase:
        metrics.phase(phase)
    metrics.waiting(3)
    metrics.cohort(invited=5, accepted=2, failed=1)
    metrics.population(workers=2, connected=4, registered=9)
    metrics.upload(UploadFate.ACCEPTED)
    metrics.upload(UploadFate.REJECTED, Reason.NOT_FINITE)
    metrics.refused("Attend", Reason.BAD_NAME)
    metrics.client_failed("training_diverged")
    metrics.client_reinitialised()
    metrics.transferred("up", 10)
    metrics.transferred("down", 20)
    metrics.fold(0.1)
    metrics.journal_write(0.01)
    metrics.storage_failure()
    metrics.round_committed(
        version=3,
        seconds=12.0,
        commit_seconds=0.2,
        overhead_seconds=0.5,
        heaviest=0.25,
        figures=Figures(losses={"loss": 1.5, "alignment": 0.25, "batches": 7.0}, cost=COST),
    )
    metrics.model(3, Figures(losses={"loss": 1.5}, cost=COST, privacy=PrivacyCost(honest=2, epsilon=3.0)))
    metrics.quality(Quality(version=2, measures={"h_uniformity_inter": 3.5}))
    metrics.round_abandoned(4.0)
    metrics.secure.phase("offered", 0.5)
    metrics.secure.stopped(AbortReason.PARTICIPANT_LOST)
    metrics.secure.rejected(AbortReason.UNKNOWN_SENDER)
    metrics.secure.participants(invited=3, uploaded=2)
    metrics.secure.opened(dropped=1, seconds=0.25)
    metrics.certificate_request("enroll", "issued")
    metrics.evaluation(3, {"knn_accuracy": 0.5, "train_uniformity": -2.0, "broken": math.nan})
    metrics.read_at_scrape(ram_used=lambda: 11, disk_used=lambda: 12, free_bytes=lambda: 13)


PROMISED = {
    "rounds": ("counter", {"outcome"}),
    "round_duration_seconds": ("histogram", set()),
    "round_phase_duration_seconds": ("histogram", {"phase"}),
    "round_overhead_seconds": ("histogram", set()),
    "cohort_clients": ("gauge", {"state"}),
    "updates": ("counter", {"fate", "reason"}),
    "messages_refused": ("counter", {"call", "reason"}),
    "messages_throttled": ("counter", set()),
    "connections_cut": ("counter", {"port"}),
    "heaviest_client_weight_ratio": ("gauge", set()),
    "evaluator_disagreements": ("counter", set()),
    "certificate_requests": ("counter", {"call", "outcome"}),
    "transfer_bytes": ("counter", {"direction"}),
    "fold_duration_seconds": ("histogram", set()),
    "journal_write_duration_seconds": ("histogram", set()),
    "commit_duration_seconds": ("histogram", set()),
    "storage_failures": ("counter", set()),
    "model_version": ("gauge", set()),
    "connected_workers": ("gauge", set()),
    "connected_clients": ("gauge", set()),
    "registered_clients": ("gauge", set()),
    "client_reinitialisations": ("counter", set()),
    "certificate_reloads": ("counter", {"outcome"}),
    "certificate_expiry_timestamp_seconds": ("gauge", set()),
    "history_contradictions": ("counter", set()),
    "client_failures": ("counter", {"reason"}),
    "loss": ("gauge", {"term"}),
    "step_norm": ("gauge", set()),
    "privacy_epsilon": ("gauge", {"scope"}),
    "representation": ("gauge", {"measure"}),
    "quality": ("gauge", {"features", "measure"}),
    "quality_version": ("gauge", set()),
    "evaluation": ("gauge", {"measure"}),
    "evaluated_version": ("gauge", set()),
    "staging_bytes": ("gauge", {"kind"}),
    "phase": ("gauge", {"phase"}),
    "waiting_for_clients": ("gauge", set()),
    "state_free_bytes": ("gauge", set()),
    "committed_timestamp_seconds": ("gauge", set()),
    "memory_peak_bytes": ("gauge", set()),
    "build_info": ("gauge", {"build", "python"}),
    "secure_aggregation_phase_duration_seconds": ("histogram", {"phase"}),
    "secure_aggregation_aborts": ("counter", {"reason"}),
    "secure_aggregation_messages_rejected": ("counter", {"reason"}),
    "secure_aggregation_participants": ("gauge", {"state"}),
    "secure_aggregation_dropouts": ("counter", set()),
    "secure_aggregation_unmasking_seconds": ("histogram", set()),
}


def test_the_page_has_exactly_what_is_promised(metrics: CoordinatorMetrics) -> None:
    """Dashboards and alerts are written against these names."""
    exercise(metrics)
    found = {}
    for name, family in families(metrics).items():
        if name.startswith("ssd_coordinator_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name.removeprefix("ssd_coordinator_")] = (family.type, labels)
            assert family.documentation.endswith("."), name
    assert found == PROMISED


def test_the_process_is_measured(metrics: CoordinatorMetrics) -> None:
    found = families(metrics)
    assert "process_resident_memory_bytes" in found
    peak = value(metrics, "memory_peak_bytes")
    assert peak is not None
    assert peak_memory_bytes() >= peak > 10e6


def test_no_label_names_a_client_a_worker_or_a_round(metrics: CoordinatorMetrics) -> None:
    exercise(metrics)
    for family in families(metrics).values():
        for sample in family.samples:
            assert not {"client", "worker", "round", "attempt", "version"} & sample.labels.keys()


def test_a_committed_round(metrics: CoordinatorMetrics) -> None:
    exercise(metrics)
    assert value(metrics, "rounds_total", outcome="committed") == 1
    assert value(metrics, "rounds_total", outcome="abandoned") == 1
    assert value(metrics, "round_duration_seconds_sum") == 12.0
    assert value(metrics, "round_overhead_seconds_count") == 1
    assert value(metrics, "model_version") == 3
    assert value(metrics, "loss", term="alignment") == 0.25
    assert value(metrics, "loss", term="bytes_up") is None
    assert value(metrics, "loss", term="batches") is None
    assert value(metrics, "step_norm") == 2.0


def test_an_evaluation_and_what_of_it_is_representation(metrics: CoordinatorMetrics) -> None:
    exercise(metrics)
    assert value(metrics, "evaluated_version") == 3
    assert value(metrics, "evaluation", measure="knn_accuracy") == 0.5
    assert value(metrics, "evaluation", measure="broken") is None
    assert value(metrics, "representation", measure="train_uniformity") == -2.0
    assert value(metrics, "representation", measure="knn_accuracy") is None


def test_one_phase_at_a_time_and_how_long_each_lasted(metrics: CoordinatorMetrics, clock: Clock) -> None:
    metrics.phase(Phase.WAITING)
    clock.now += 3
    metrics.phase(Phase.WAITING)
    clock.now += 4
    metrics.phase(Phase.TRAINING)
    clock.now += 20
    metrics.phase(Phase.COMMITTING)
    assert [value(metrics, "phase", phase=phase.value) for phase in Phase] == [
        float(phase is Phase.COMMITTING) for phase in Phase
    ]
    assert value(metrics, "round_phase_duration_seconds_sum", phase="waiting") == 7
    assert value(metrics, "round_phase_duration_seconds_sum", phase="training") == 20
    assert value(metrics, "round_phase_duration_seconds_sum", phase="committing") is None


def test_every_phase_and_counter_is_there_before_anything_happened(metrics: CoordinatorMetrics) -> None:
    assert value(metrics, "phase", phase="halted") == 0
    assert value(metrics, "rounds_total", outcome="abandoned") == 0
    assert value(metrics, "transfer_bytes_total", direction="up") == 0
    assert value(metrics, "updates_total", fate="rejected", reason="") == 0


def test_uploads_by_fate_and_reason(metrics: CoordinatorMetrics) -> None:
    metrics.upload(UploadFate.ACCEPTED)
    metrics.upload(UploadFate.REJECTED, "not_finite")
    metrics.upload(UploadFate.REJECTED, "a word nobody knows")
    assert value(metrics, "updates_total", fate="accepted", reason="") == 1
    assert value(metrics, "updates_total", fate="rejected", reason="not_finite") == 1
    assert value(metrics, "updates_total", fate="rejected", reason="other") == 1


def test_gauges_nobody_pushes_are_read_when_scraped(metrics: CoordinatorMetrics) -> None:
    room = {"ram": 1}
    metrics.read_at_scrape(ram_used=lambda: room["ram"], disk_used=lambda: 0, free_bytes=lambda: 9)
    assert value(metrics, "staging_bytes", kind="ram") == 1
    room["ram"] = 5
    assert value(metrics, "staging_bytes", kind="ram") == 5
    assert value(metrics, "state_free_bytes") == 9


def test_a_broken_disk_does_not_take_the_page_down(metrics: CoordinatorMetrics) -> None:
    def broken() -> int:
        raise StorageFailed("gone")

    metrics.read_at_scrape(ram_used=lambda: 1, disk_used=lambda: 2, free_bytes=broken)
    assert "ssd_coordinator_state_free_bytes NaN" in metrics.render().decode()


@pytest.mark.parametrize("hostile", ["reason", "measure", "term"])
def test_a_peer_cannot_make_the_page_grow_without_end(metrics: CoordinatorMetrics, hostile: str) -> None:
    for number in range(1000):
        metrics.client_failed(f"reason_{number}")
        metrics.evaluation(1, {f"measure_{number}": 1.0})
        metrics.model(1, Figures(losses={f"term_{number}": 1.0}))
    text = metrics.render().decode()
    assert len(re.findall(rf'{hostile}="{hostile}_\d+"', text)) <= 64
    assert f'{hostile}="other"' in text


@pytest.mark.parametrize("word", ["", "UPPER", "two words", 'quote"', "new\nline", "x" * 65, "é", "1st"])
def test_a_word_that_is_none_becomes_other(word: str) -> None:
    assert Vocabulary().label(word) == "other"


def test_known_words_need_no_room() -> None:
    vocabulary = Vocabulary(["known"], limit=1)
    assert [vocabulary.label(word) for word in ("first", "known", "second", "first")] == [
        "first",
        "known",
        "other",
        "first",
    ]


def test_two_coordinators_in_one_process_do_not_share_numbers() -> None:
    first, second = CoordinatorMetrics(), CoordinatorMetrics()
    first.storage_failure()
    assert value(first, "storage_failures_total") == 1
    assert value(second, "storage_failures_total") == 0


def test_quality_belongs_to_its_version_and_goes_when_it_is_no_longer_defined(
    metrics: CoordinatorMetrics,
) -> None:
    metrics.model(
        1, Figures(losses={"loss": 2.0}, quality=Quality(version=0, measures={"h_uniformity_inter": 3.5}))
    )
    assert value(metrics, "quality", features="h", measure="uniformity_inter") == 3.5
    assert value(metrics, "loss", term="quality_h_uniformity_inter") is None
    metrics.model(2, Figures(losses={"loss": 1.0}))
    assert value(metrics, "quality", features="h", measure="uniformity_inter") == 3.5
    assert value(metrics, "quality_version") == 0
    metrics.model(3, Figures(losses={"loss": 1.0}, quality=Quality(version=2, measures={"h_images": 0.0})))
    assert value(metrics, "quality", features="h", measure="uniformity_inter") is None
    assert value(metrics, "quality_version") == 2
