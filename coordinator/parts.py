"""What a run is built of, and the parts that it is built into."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.config.run_settings import Settings
from coordinator.core.state import RunState
from coordinator.evaluation.schedule import Evaluations
from coordinator.identity.revocations import RevocationList
from coordinator.inspection.gauges import Gauges
from coordinator.inspection.reports import Reports
from coordinator.ports.blobs import Blobs
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.method_host import MethodHost
from coordinator.ports.records import RunRecord
from coordinator.ports.staging import Staging
from coordinator.rounds.downloads import Downloads
from coordinator.rounds.driver import Driver
from coordinator.rounds.machine import RoundMachine
from coordinator.rounds.worker_reports import WorkerReports
from coordinator.runtime.mailbox import Mailbox
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import Tracing
from coordinator.uploads.in_flight import UploadsInFlight
from coordinator.uploads.service import Uploads
from coordinator.uploads.verification import UploadVerification
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.next_version import VersionMaker
from coordinator.versions.privacy import Privacy
from coordinator.versions.quality import QualityRounds
from coordinator.workers.ownership import ClientOwnership
from coordinator.workers.sessions import SessionTable
from ssd.trust.participants import Registry
from ssd.updates.declaration import Declaration
from ssd.updates.fold import FoldPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a run is built of: its records, the outside world, and how it is configured."""

    record: RunRecord
    declaration: Declaration
    plan: FoldPlan
    maker: VersionMaker
    state: RunState
    settings: Settings
    journal: Journal
    blobs: Blobs
    staging: Staging
    host: MethodHost
    state_dir: Path
    clock: Clock
    metrics: CoordinatorMetrics
    revocations: RevocationList
    tracing: Tracing
    participants: Callable[[], Registry | None] = lambda: None
    entropy: Callable[[int], bytes] = os.urandom
    privacy: Privacy | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Coordinator:
    """The parts of one run that others talk to."""

    given: Given
    driver: Driver
    machine: RoundMachine
    mailbox: Mailbox
    catalogue: Catalogue
    sessions: SessionTable
    attendance: WorkerReports
    ownership: ClientOwnership
    uploads: Uploads
    in_flight: UploadsInFlight
    verification: UploadVerification
    downloads: Downloads
    evaluations: Evaluations
    reports: Reports
    gauges: Gauges
    round_sum: RoundSum
    quality: QualityRounds
    max_upload_bytes: int
    """The longest body an upload of this run can have."""
