"""The composition root: builds every part, starts it, and stops it in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket

from coordinator.composition import compose
from coordinator.config.derived import max_cohort, noise_plan_of, plan_of, policy_of, settings_of
from coordinator.config.new_run import new_run_of
from coordinator.config.sections import CoordinatorConfig, refuse_changes
from coordinator.core.policy import Mode
from coordinator.core.strategies.registry import create as create_strategy
from coordinator.errors import ConfigInvalid, StorageFailed
from coordinator.identity.enrolment import CertificateIssuer, open_issuer
from coordinator.identity.revocations import NobodyRevoked, RevocationList, Revocations
from coordinator.method_host.client import SubprocessMethodHost
from coordinator.method_host.hook import SCRATCH_PREFIX as HOOK_PREFIX
from coordinator.parts import Coordinator, Given
from coordinator.ports.records import RunRecord
from coordinator.rounds.driver import Driver
from coordinator.rounds.preconditions import cautions
from coordinator.rounds.restore import restore
from coordinator.rounds.run_lifecycle import SCRATCH_PREFIX, create_run, privacy_of
from coordinator.rpc.enrolment import EnrolmentServer, RenewalServicer
from coordinator.rpc.federation.servicer import FederationServicer
from coordinator.rpc.operator.servicer import OperatorServicer
from coordinator.rpc.server import RpcServer
from coordinator.rpc.serving.transport import Transport
from coordinator.runtime.clock import SystemClock
from coordinator.runtime.memory import share_arenas
from coordinator.runtime.open_files import raise_limit
from coordinator.secure_aggregation.participant_registry import participants_of
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.files.staging import BudgetedStaging
from coordinator.store.journal import chain
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.lock import StateDirectoryLock
from coordinator.store.trust import SqliteTrust
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.round_spans import RoundSpans
from coordinator.telemetry.tracing import NoTracing, RoundTracing, Tracing
from coordinator.versions.next_version import VersionMaker
from coordinator.web.access import Access
from coordinator.web.api import Api
from coordinator.web.http import HttpServer, create_app
from coordinator.web.pages import add_pages
from coordinator.workers.welcome import BUILD
from ssd.daemon.cli.exit_codes import EXIT_STORAGE
from ssd.daemon.logs import configure as configure_logs
from ssd.daemon.logs import event as log_event
from ssd.daemon.tracing.setup import Exporter, TracingUnavailable, open_exporter
from ssd.privacy.settings import left_out
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 3.0
HEALTH_INTERVAL_SECONDS = 0.25


def run(config: CoordinatorConfig) -> int:
    """Run the daemon until it is drained, stopped or done; the process's exit code.

    Raises:
        OperatorFault: it could not start, and what to do about it.
    """
    configure_logs(config.log.level, config.log.format)
    share_arenas()
    raise_limit(config.limits.max_connections)
    with StateDirectoryLock(config.coordinator.state_dir):
        return asyncio.run(_serve(config))


async def _serve(config: CoordinatorConfig) -> int:
    clock = SystemClock()
    metrics = CoordinatorMetrics(BUILD)
    # Before anything is written: a run that nobody can be let into is not worth creating.
    transport = Transport(config.transport, config.http_identity, clock, metrics)
    access = Access(config.coordinator.http_token_file, clock.monotonic)
    exporter = open_tracing(config)
    state_dir = config.coordinator.state_dir
    for prefix in (SCRATCH_PREFIX, HOOK_PREFIX):
        for leftover in state_dir.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    async with contextlib.AsyncExitStack() as stack:
        if exporter is not None:
            stack.push_async_callback(asyncio.to_thread, exporter.close)
        journal = SqliteJournal(state_dir)
        stack.callback(journal.close)
        trust = SqliteTrust(state_dir)
        stack.callback(trust.close)
        host = SubprocessMethodHost()
        stack.push_async_callback(host.close)
        revocations = NobodyRevoked() if config.transport.insecure else Revocations(trust)
        given = await _given(config, journal, host, transport, revocations, metrics, exporter, clock)
        parts = compose(given)
        staging = given.staging
        if not staging.fits(parts.max_upload_bytes):
            raise ConfigInvalid(
                f"an upload of this run may have {parts.max_upload_bytes} bytes, and neither staging budget holds one:"
                " raise limits.staging_disk_bytes"
            )
        _check_versions(parts)
        metrics.read_at_scrape(
            ram_used=lambda: staging.ram_used,
            disk_used=lambda: staging.disk_used,
            free_bytes=given.blobs.free_bytes,
        )
        server = await _listen(config, parts, transport, trust, access, stack)
        if isinstance(revocations, Revocations):
            watching = asyncio.ensure_future(revocations.watch())
            stack.callback(watching.cancel)
        return await _drive(parts, server, transport, access)


async def _given(
    config: CoordinatorConfig,
    journal: SqliteJournal,
    host: SubprocessMethodHost,
    transport: Transport,
    revocations: RevocationList,
    metrics: CoordinatorMetrics,
    exporter: Exporter | None,
    clock: SystemClock,
) -> Given:
    """The run, taken up or created, and everything it is built of."""
    state_dir, limits = config.coordinator.state_dir, config.limits
    blobs = FileBlobs(state_dir)
    record = await _current_run(config, journal, blobs, host, clock)
    # Nothing needs it any more until a round commits, and then only if the method has a server hook.
    await host.close()
    declaration = Declaration.from_json(record.declaration)
    plan = plan_of(declaration, config)
    settings = settings_of(config)
    privacy = privacy_of(noise_plan_of(plan, config), os.urandom)
    if privacy is not None:
        planned = privacy.describe(0, config.run.rounds, None)
        log_event(log, logging.INFO, "privacy", detail=planned, not_reported=left_out(declaration))
    secure, invited = config.secure_aggregation, max_cohort(config)
    for sentence in cautions(secure, Mode(config.run.mode), invited, private=privacy is not None):
        log_event(log, logging.WARNING, "secure_aggregation_caution", detail=sentence)
    tracing: Tracing = NoTracing()
    if exporter is not None:
        tracing = RoundTracing(RoundSpans(record.run_id, config.tracing.share), exporter.emit, clock.wall)
    strategy = create_strategy(config.strategy.name, config.strategy.rates)
    staging = BudgetedStaging(
        state_dir / "staging", limits.staging_ram_bytes, limits.staging_disk_bytes, limits.min_free_bytes
    )
    proven = not config.transport.insecure
    return Given(
        record=record,
        declaration=declaration,
        plan=plan,
        maker=VersionMaker(declaration, strategy, Encoding(config.wire.delta_encoding), blobs),
        state=restore(policy_of(config, declaration), journal, clock, proven=proven),
        settings=settings,
        journal=journal,
        blobs=blobs,
        staging=staging,
        host=host,
        state_dir=state_dir,
        clock=clock,
        metrics=metrics,
        revocations=revocations,
        participants=participants_of(config.secure_aggregation, transport.federation),
        privacy=privacy,
        tracing=tracing,
    )


async def _listen(
    config: CoordinatorConfig,
    parts: Coordinator,
    transport: Transport,
    trust: SqliteTrust,
    access: Access,
    stack: contextlib.AsyncExitStack,
) -> RpcServer:
    """Open the ports: gRPC, enrolment if it is configured, HTTP."""
    given = parts.given
    clock, metrics = given.clock, given.metrics
    issuer = open_issuer(config.transport, config.enrolment, trust, parts.ownership.bind, clock, metrics)
    server = _rpc_server(config, parts, issuer, transport)
    port = await server.start(str(config.listen), transport.credentials())
    stack.push_async_callback(server.stop, STOP_GRACE_SECONDS)
    if config.enrolment_listen is not None and issuer is not None:
        enrolment = EnrolmentServer(issuer, clock, metrics)
        await enrolment.start(config.enrolment_listen, transport.enrolment_credentials())
        stack.push_async_callback(enrolment.stop, STOP_GRACE_SECONDS)
    http_address = ""
    if config.http_listen is not None:
        api = Api(parts.reports, parts.driver, clock, access, BUILD)
        http = HttpServer(
            create_app(metrics.render, lambda: not_ready(parts.driver), add_pages, api.add_to),
            transport.http,
            lambda: metrics.connection_cut("http"),
        )
        http_address = str(await http.start(config.http_listen))
        stack.push_async_callback(http.stop)
    log_event(
        log,
        logging.INFO,
        "listening",
        address=f"{config.listen.host}:{port}" if port else str(config.listen),
        http=http_address,
        run=given.record.run_id,
        method=given.declaration.method,
        version=parts.machine.state.version,
    )
    return server


def _check_versions(parts: Coordinator) -> None:
    """Refuse to start on a damaged version, remove what a crash left behind, and show the newest version.

    Raises:
        BlobMissing, BlobCorrupt: names the file's role and says what to do.
    """
    parts.catalogue.verify_newest()
    attempt = parts.machine.state.attempt
    if not attempt or not attempt.restored:
        # (What a journaled but uncommitted set was being made into is not in the journal yet.)
        parts.catalogue.remove_orphans()
    newest, metrics = parts.catalogue.newest, parts.given.metrics
    metrics.model(newest.number, newest.figures)
    metrics.quality(parts.quality.newest)


def _rpc_server(
    config: CoordinatorConfig, parts: Coordinator, issuer: CertificateIssuer | None, transport: Transport
) -> RpcServer:
    limits, identity = config.limits, transport.identity
    clock, metrics = parts.given.clock, parts.given.metrics
    federation = FederationServicer(
        attendance=parts.attendance,
        sessions=parts.sessions,
        downloads=parts.downloads,
        uploads=parts.uploads,
        identity=identity,
        limits=limits,
        metrics=metrics,
        tracing=parts.given.tracing,
    )
    operator = OperatorServicer(
        reports=parts.reports,
        gauges=parts.gauges,
        driver=parts.driver,
        ownership=parts.ownership,
        identity=identity,
        metrics=metrics,
        clock=clock,
        stall_seconds=limits.stall_seconds,
    )
    renewal = RenewalServicer(issuer, identity, clock, metrics)
    services = (federation.handler(), renewal.handler(), operator.handler())
    return RpcServer(services, identity, parts.given.revocations, limits, metrics)


def open_tracing(config: CoordinatorConfig) -> Exporter | None:
    """Where spans go; None: tracing is off.

    Raises:
        ConfigInvalid: it cannot be as configured.
    """
    own = config.tracing
    if not own.endpoint:
        return None
    resource = {
        "service.name": own.service_name,
        "service.version": BUILD,
        "service.instance.id": socket.gethostname(),
    }
    try:
        return open_exporter(own.endpoint, own.root_certificates, resource)
    except TracingUnavailable as error:
        raise ConfigInvalid(str(error)) from error


async def _current_run(
    config: CoordinatorConfig,
    journal: SqliteJournal,
    blobs: FileBlobs,
    host: SubprocessMethodHost,
    clock: SystemClock,
) -> RunRecord:
    current = journal.current_run()
    if current is None:
        return await create_run(new_run_of(config), journal, blobs, host, clock)
    chain.verify(journal)
    refuse_changes(current.config, config)
    if config.run.clients:
        # A crash while the run was created may have come before them.
        journal.register_clients(config.run.clients, clock.wall())
    if journal.run_finished() and journal.versions()[-1].number < config.run.rounds:
        journal.reopen_run()
    return current


async def _drive(parts: Coordinator, server: RpcServer, transport: Transport, access: Access) -> int:
    loop, driver = asyncio.get_running_loop(), parts.driver
    stops = 0

    def on_signal() -> None:
        nonlocal stops
        stops += 1
        if stops > 1:
            log_event(log, logging.WARNING, "forced")
            # Everything that matters is durable at every instant; a second signal means now.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        log_event(log, logging.INFO, "stopping")
        driver.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    def reload() -> None:
        transport.reload()
        access.reload()

    loop.add_signal_handler(signal.SIGHUP, reload)
    health = asyncio.ensure_future(_keep_health(parts, server))
    try:
        with contextlib.suppress(StorageFailed):
            await driver.run()
    finally:
        health.cancel()
        with contextlib.suppress(Exception):
            await server.serving(False)
    if driver.storage_trouble:
        # Asked to stop while the medium failed: nothing is lost, the attempt is journaled as far as it got.
        log_event(log, logging.ERROR, "stopped_in_storage_failure", detail=driver.storage_trouble)
        return EXIT_STORAGE
    log_event(log, logging.INFO, "stopped", version=parts.machine.state.version)
    return 0


async def _keep_health(parts: Coordinator, server: RpcServer) -> None:
    while True:
        await server.serving(parts.driver.ready)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(parts.gauges.changed(), HEALTH_INTERVAL_SECONDS)


def not_ready(driver: Driver) -> list[str]:
    """Why /readyz says no; empty if it says yes."""
    if driver.ready:
        return []
    return [driver.storage_trouble or "the round machine is not running"]
