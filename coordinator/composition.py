"""Builds the parts of one run and ties them together; `coordinator.app` starts and stops them."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.evaluation.on_clients import ClientEvaluations
from coordinator.evaluation.on_probe import ProbeEvaluation
from coordinator.evaluation.records import EvaluationRecords
from coordinator.evaluation.schedule import Evaluations
from coordinator.inspection.gauges import Gauges
from coordinator.inspection.reports import Reports, RunFacts
from coordinator.method_host.hook import HookRunner
from coordinator.parts import Coordinator, Given
from coordinator.rounds.commit import AfterCommit, Commit, VersionWriter
from coordinator.rounds.downloads import Downloads
from coordinator.rounds.driver import Driver
from coordinator.rounds.hook_step import HookStep, HostedHook, NoHook
from coordinator.rounds.machine import RoundMachine
from coordinator.rounds.performers import AttemptEffects, OpenAttempts, RunEffects
from coordinator.rounds.worker_reports import WorkerReports
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.runtime.mailbox import Mailbox
from coordinator.secure_aggregation.opening import SumOpening
from coordinator.secure_aggregation.round_sum import MaskedRoundSum
from coordinator.secure_aggregation.transcripts import Transcripts
from coordinator.store.files.spool import MaskedSpool
from coordinator.sums.account import PrivacyAccount
from coordinator.sums.plain_sum import NoisySum, PlainSum
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.client_history import ClientHistory
from coordinator.telemetry.recent import RecentStatus
from coordinator.telemetry.round_cost import RoundCost
from coordinator.uploads.addressing import EnvelopeChecks
from coordinator.uploads.client_weights import ClientWeights
from coordinator.uploads.in_flight import UploadsInFlight
from coordinator.uploads.service import Uploads
from coordinator.uploads.verification import UploadVerification
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.inclusions import Inclusions
from coordinator.versions.privacy import NoPrivacy
from coordinator.versions.quality import QualityRounds, newest, stored_frequencies
from coordinator.workers.ownership import ClientOwnership
from coordinator.workers.sessions import SessionTable
from coordinator.workers.tasks import Tasks
from coordinator.workers.welcome import RunTerms
from ssd.updates.codec import Encoding
from ssd_wire.messages import Evaluate


def compose(given: Given) -> Coordinator:
    """All parts of one run. Nothing is started, and nothing is written.

    Raises:
        ValueError: the workers would be told of noise that nobody accounts for, or the other way round.
        OverflowRisk: the sums of the run could overflow.
    """
    if (given.privacy is None) != (given.settings.privacy is None):
        raise ValueError("the workers are told of noise that nobody accounts for, or the other way round")
    return _Composition(given).coordinator()


class _Composition:
    """One pass of building; every part is made once, after what it needs."""

    def __init__(self, given: Given) -> None:
        self._given = given
        settings, journal, clock = given.settings, given.journal, given.clock
        self._mailbox = Mailbox()
        self._history = ClientHistory()
        self._recent = RecentStatus()
        self._sessions = SessionTable()
        self._durability = DurableWrites(clock, given.metrics)
        self._cost = RoundCost(given.metrics, clock.monotonic())
        self._weights = ClientWeights(settings.limits.max_weight_ratio)
        self._inclusions = Inclusions(journal)
        self._catalogue = Catalogue(given.record, journal, given.blobs)
        self._machine = RoundMachine(
            given.state, self._mailbox, clock, given.metrics, given.tracing, self._history
        )
        self._quality = QualityRounds(
            given.plan,
            Encoding(settings.update_encoding),
            settings.evaluation.every,
            lambda: stored_frequencies(given.record.artefacts, given.blobs),
        )
        self._quality.newest = newest(journal.versions())
        self._tasks = Tasks(
            run=given.record,
            declaration=given.declaration,
            seed=settings.run.seed,
            threads=settings.run.threads,
            expected_clients=settings.expected_clients,
            scaling={record.client: record.scaling for record in journal.clients()},
            quality=self._quality,
        )
        self._sum = self._round_sum()
        privacy = NoPrivacy() if given.privacy is None else given.privacy
        self._account = PrivacyAccount(privacy, self._machine, self._catalogue, self._sum)
        self._in_flight = UploadsInFlight(given.staging, settings.limits.staging_bytes_per_worker)
        self._records = EvaluationRecords(journal, self._durability, clock, given.metrics)
        self._evaluations = Evaluations(
            self._records, settings.evaluation, self._probe_evaluation(), self._client_evaluations()
        )
        self._resume()

    def _resume(self) -> None:
        """Take up the attempt that the journal has open, if there is one."""
        attempt = self._given.state.attempt
        if attempt is not None:
            found = self._given.journal.attempts(1)[0]
            self._tasks.opened(attempt.round, found.cohort)
            self._history.begin(attempt.round, attempt.number, found.cohort)
            self._given.tracing.resumed(self._given.state, found.opened_at)

    def _round_sum(self) -> RoundSum:
        given, settings = self._given, self._given.settings
        round_number = given.state.round
        if settings.secure is None and (given.privacy is None or not given.privacy.central):
            return PlainSum(self._quality, given.tracing, round_number)
        if settings.secure is None:
            assert given.privacy is not None
            return NoisySum(self._quality, given.tracing, round_number, given.privacy)
        kept = settings.secure.section.transcript
        opening = SumOpening(
            run=self._machine,
            settings=settings.secure,
            registry=given.participants,
            journal=given.journal,
            durability=self._durability,
            transcripts=Transcripts(given.state_dir / "transcripts") if kept else None,
            clock=given.clock,
            metrics=given.metrics.secure,
        )
        return MaskedRoundSum(
            settings=settings.secure,
            quality=self._quality,
            opening=opening,
            run=self._machine,
            mailbox=self._mailbox,
            durability=self._durability,
            sessions=self._sessions,
            clock=given.clock,
            metrics=given.metrics.secure,
            spool=MaskedSpool(given.state_dir / "masked"),
            tracing=given.tracing,
            entropy=given.entropy,
        )

    def _probe_evaluation(self) -> ProbeEvaluation:
        given = self._given
        return ProbeEvaluation(
            records=self._records,
            catalogue=self._catalogue,
            sessions=self._sessions,
            settings=given.settings.evaluation,
            seed=given.settings.run.seed,
            metrics=given.metrics,
            now=given.clock.monotonic,
        )

    def _client_evaluations(self) -> ClientEvaluations | None:
        given = self._given
        # What clients measure on their own images would leave them unmasked, or without noise.
        if given.settings.secure is not None or given.privacy is not None:
            return None
        if not given.declaration.client_evaluation:
            return None
        return ClientEvaluations(
            sessions=self._sessions,
            order=self._order_evaluation,
            run=self._machine,
            inclusions=self._inclusions,
            needs_images=given.declaration.needs_images,
            wait_seconds=given.settings.evaluation.wait_seconds,
            now=given.clock.monotonic,
        )

    def _order_evaluation(self, version: int, clients: Sequence[str]) -> Evaluate:
        record = self._catalogue.record(version)
        assert record is not None  # only versions that exist are measured
        return self._tasks.evaluate(self._catalogue.offer(version), record.artefacts, clients)

    def _hook(self) -> HookStep:
        given = self._given
        if not given.declaration.server_hook:
            return NoHook()
        runner = HookRunner(
            run=given.record,
            declaration=given.declaration,
            plan=given.plan,
            seed=given.settings.run.seed,
            host=given.host,
            blobs=given.blobs,
            durability=self._durability,
            state_dir=given.state_dir,
        )
        return HostedHook(
            self._machine, self._mailbox, runner, self._tasks, self._catalogue, given.tracing, given.clock
        )

    def _commit(self) -> Commit:
        given = self._given
        writer = VersionWriter(
            journal=given.journal,
            catalogue=self._catalogue,
            maker=given.maker,
            durability=self._durability,
            round_sum=self._sum,
            account=self._account,
            quality=self._quality,
            cost=self._cost,
            tracing=given.tracing,
            clock=given.clock,
        )
        after = AfterCommit(
            journal=given.journal,
            durability=self._durability,
            catalogue=self._catalogue,
            sessions=self._sessions,
            evaluations=self._evaluations,
            inclusions=self._inclusions,
            quality=self._quality,
            history=self._history,
            metrics=given.metrics,
            weights=self._weights,
            retention=(given.settings.retention.full_versions, given.settings.retention.deltas),
        )
        return Commit(
            run=self._machine,
            writer=writer,
            after=after,
            round_sum=self._sum,
            hook=self._hook(),
            quality=self._quality,
            in_flight=self._in_flight,
            cost=self._cost,
            clock=given.clock,
        )

    def _attendance(self, max_upload_bytes: int) -> WorkerReports:
        given, settings = self._given, self._given.settings
        terms = RunTerms(
            run=given.record,
            declaration=given.declaration,
            plan=self._quality.largest,
            update_encoding=settings.update_encoding,
            delta_encoding=settings.wire.delta_encoding,
            heartbeat_seconds=settings.limits.heartbeat_seconds,
            data_endpoints=settings.data_endpoints,
            max_upload_bytes=max_upload_bytes,
            secure=settings.secure,
            privacy=settings.privacy,
        )
        return WorkerReports(
            run=self._machine,
            terms=terms,
            inclusions=self._inclusions,
            sessions=self._sessions,
            mailbox=self._mailbox,
            catalogue=self._catalogue,
            evaluations=self._evaluations,
            round_sum=self._sum,
            clock=given.clock,
            metrics=given.metrics,
            revocations=given.revocations,
            recent=self._recent,
        )

    def _ownership(self) -> ClientOwnership:
        given = self._given
        return ClientOwnership(
            run=self._machine,
            sessions=self._sessions,
            mailbox=self._mailbox,
            journal=given.journal,
            durability=self._durability,
            clock=given.clock,
            revocations=given.revocations,
        )

    def _uploads(self, verification: UploadVerification) -> Uploads:
        given = self._given
        checks = EnvelopeChecks(
            run=self._machine,
            record=given.record,
            declaration=given.declaration,
            catalogue=self._catalogue,
            tasks=self._tasks,
            quality=self._quality,
            round_sum=self._sum,
            weights=self._weights,
        )
        return Uploads(
            checks=checks,
            in_flight=self._in_flight,
            verification=verification,
            mailbox=self._mailbox,
            cost=self._cost,
            clock=given.clock,
        )

    def _perform(self, verification: UploadVerification, commit: Commit) -> None:
        """Tell the machine who performs which effect."""
        given = self._given
        run_effects = RunEffects(
            run=self._machine,
            journal=given.journal,
            durability=self._durability,
            mailbox=self._mailbox,
            sessions=self._sessions,
            tasks=self._tasks,
            clock=given.clock,
        )
        opening = OpenAttempts(
            run=self._machine,
            journal=given.journal,
            blobs=given.blobs,
            min_free_bytes=given.settings.limits.min_free_bytes,
            durability=self._durability,
            commit=commit,
            round_sum=self._sum,
            tasks=self._tasks,
            catalogue=self._catalogue,
            sessions=self._sessions,
            recent=self._recent,
            clock=given.clock,
        )
        attempt = AttemptEffects(
            uploads=verification,
            in_flight=self._in_flight,
            commit=commit,
            round_sum=self._sum,
            journal=given.journal,
            durability=self._durability,
            sessions=self._sessions,
            history=self._history,
            recent=self._recent,
            cost=self._cost,
            clock=given.clock,
            metrics=given.metrics,
        )
        self._machine.perform_with(run_effects.table(), opening.table(), attempt.table(), commit.table())

    def _reports(self) -> Reports:
        given = self._given
        facts = RunFacts(
            record=given.record,
            declaration=given.declaration,
            privacy=given.settings.privacy,
            started=given.clock.monotonic(),
        )
        return Reports(
            run=self._machine,
            facts=facts,
            catalogue=self._catalogue,
            journal=given.journal,
            sessions=self._sessions,
            recent=self._recent,
            inclusions=self._inclusions,
            evaluations=self._records,
            quality=self._quality,
            account=self._account,
            round_sum=self._sum,
            durability=self._durability,
        )

    def coordinator(self) -> Coordinator:
        """The parts, tied together."""
        given = self._given
        ownership = self._ownership()
        verification = UploadVerification(
            in_flight=self._in_flight,
            plan=self._quality.plan,
            mailbox=self._mailbox,
            run=self._machine,
            ownership=ownership,
            history=self._history,
            clock=given.clock,
            metrics=given.metrics,
            recent=self._recent,
        )
        self._perform(verification, self._commit())
        max_upload_bytes = self._sum.max_upload_nbytes(self._quality.largest)
        attendance = self._attendance(max_upload_bytes)
        gauges = Gauges(self._machine, self._sessions, self._account, given.metrics)
        driver = Driver(
            machine=self._machine,
            mailbox=self._mailbox,
            durability=self._durability,
            round_sum=self._sum,
            evaluations=self._evaluations,
            reports=attendance,
            verification=verification,
            sessions=self._sessions,
            gauges=gauges,
            clock=given.clock,
            heartbeat_seconds=given.settings.limits.heartbeat_seconds,
            stop_when_finished=given.settings.run.when_done == "exit",
        )
        return Coordinator(
            given=given,
            driver=driver,
            machine=self._machine,
            mailbox=self._mailbox,
            catalogue=self._catalogue,
            sessions=self._sessions,
            attendance=attendance,
            ownership=ownership,
            uploads=self._uploads(verification),
            in_flight=self._in_flight,
            verification=verification,
            downloads=Downloads(self._catalogue, self._sum, self._cost),
            evaluations=self._evaluations,
            reports=self._reports(),
            gauges=gauges,
            round_sum=self._sum,
            quality=self._quality,
            max_upload_bytes=max_upload_bytes,
        )
