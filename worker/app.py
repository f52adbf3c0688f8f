"""The composition root: builds every part, starts it, and stops it in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Mapping
from importlib import metadata

from ssd.daemon.logs import configure as configure_logs
from ssd.daemon.logs import event as log_event
from ssd.daemon.tracing.setup import Exporter, TracingUnavailable, open_exporter
from ssd.secagg.protocol.graph import PPM, Level
from ssd.secagg.protocol.policy import ParticipantPolicy
from ssd.trust.identity_store import IdentityStore
from ssd.trust.names import Subject
from worker.config.hosted_clients import data_fields, has_client_tests, has_labels, hosted_clients
from worker.config.sections import WorkerConfig
from worker.connection.renewal import Renewal
from worker.core.state import SecureTerms, Session
from worker.driver import Driver
from worker.errors import ConfigInvalid
from worker.rpc.channels import Channels
from worker.rpc.client import MAX_MESSAGE_BYTES, Greeting, GrpcTransport
from worker.rpc.renewal import RenewalCall
from worker.secure_aggregation.identity import SecureIdentity
from worker.secure_aggregation.rounds import SecureSettings
from worker.store.sqlite import SqliteStore
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import NoTracing, TaskTracing, Tracing
from worker.training.process import ProcessTrainer, TrainerSettings

_log = logging.getLogger(__name__)


class SystemClock:
    """`worker.ports.Clock` of the machine."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def uniform(self) -> float:
        """A draw in [0, 1)."""
        return self._random.random()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def build_name() -> str:
    """Name and version of the installed software."""
    try:
        return f"ssd-federated {metadata.version('ssd-federated')}"
    except metadata.PackageNotFoundError:
        return "ssd-federated (source)"


def run(config: WorkerConfig) -> None:
    """Run the worker until it is told to stop.

    Raises:
        OperatorFault: with the sentence for the operator.
    """
    configure_logs(config.log.level, config.log.format)
    clients = hosted_clients(config.data)
    if not clients and not config.evaluates:
        raise ConfigInvalid("[data] clients: this worker hosts no client and evaluates nothing")
    asyncio.run(_run(config, clients))


async def _run(config: WorkerConfig, clients: tuple[str, ...]) -> None:
    channels = Channels(
        folder=None if config.transport.insecure else config.identity_dir,
        server_name=config.transport.server_name,
        max_message_bytes=MAX_MESSAGE_BYTES,
        now=lambda: dt.datetime.now(dt.UTC),
        proxy=config.transport.proxy,
    )
    own = channels.identity()
    if own is None:
        log_event(_log, logging.WARNING, "insecure", detail="no TLS: the coordinator must be on this machine")
    else:
        config = _named(config, own.subject)
    settings = config.worker
    store = await asyncio.to_thread(SqliteStore, settings.state_dir)
    try:
        metrics = Metrics(build_name())
        exporter = open_tracing(config)
        driver = _driver(config, clients, store, channels, metrics, exporter)
        _stop_on_signals(driver)
        log_event(
            _log,
            logging.INFO,
            "started",
            name=settings.name,
            coordinator=settings.coordinator,
            clients=len(clients),
            state=settings.state_dir,
        )
        async with (
            _closing(exporter),
            _serving(settings.http_listen, metrics, driver),
            _renewing(config, channels, metrics),
        ):
            await driver.run()
        log_event(_log, logging.INFO, "stopped")
    finally:
        store.close()


def _serving(listen: str, metrics: Metrics, driver: Driver) -> contextlib.AbstractAsyncContextManager[None]:
    """The metrics port; without one, the HTTP server is not even imported."""
    if not listen:
        return contextlib.nullcontext()
    from worker.web import serve_http

    return serve_http(listen, metrics, driver)


def open_tracing(config: WorkerConfig) -> Exporter | None:
    """Where spans go; None: tracing is off.

    Raises:
        ConfigInvalid: it cannot be as configured.
    """
    own = config.tracing
    if not own.endpoint:
        return None
    resource = {
        "service.name": own.service_name,
        "service.version": build_name(),
        "service.instance.id": config.worker.name,
    }
    try:
        return open_exporter(own.endpoint, own.root_certificates, resource)
    except TracingUnavailable as error:
        raise ConfigInvalid(str(error)) from error


@contextlib.asynccontextmanager
async def _closing(exporter: Exporter | None) -> AsyncIterator[None]:
    """Sends what is left at the end."""
    try:
        yield
    finally:
        if exporter is not None:
            await asyncio.to_thread(exporter.close)


def _named(config: WorkerConfig, subject: Subject) -> WorkerConfig:
    """The configuration under the certificate's name, which it may leave out but not contradict."""
    own = config.worker
    if own.name == subject.name:
        return config
    if "name" in own.model_fields_set:
        raise ConfigInvalid(
            f"[worker] name: {own.name!r}, but the certificate in {config.identity_dir} is {subject.name!r}'s"
        )
    return config.model_copy(update={"worker": own.model_copy(update={"name": subject.name})})


@contextlib.asynccontextmanager
async def _renewing(config: WorkerConfig, channels: Channels, metrics: Metrics) -> AsyncIterator[None]:
    """Keeps the certificate valid meanwhile."""
    if config.transport.insecure:
        yield
        return
    renewal = Renewal(
        store=IdentityStore(config.identity_dir),
        ask=RenewalCall(channels, config.worker.coordinator),
        clock=SystemClock(),
        now=channels.now,
        metrics=metrics,
    )
    keeping = asyncio.create_task(renewal.keep())
    keeping.add_done_callback(_complain_of_defect)
    try:
        yield
    finally:
        keeping.cancel()


def _complain_of_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        # The present certificate goes on working; the operator has until its end.
        log_event(_log, logging.ERROR, "renewal_stopped", error)


def _driver(
    config: WorkerConfig,
    clients: tuple[str, ...],
    store: SqliteStore,
    channels: Channels,
    metrics: Metrics,
    exporter: Exporter | None,
) -> Driver:
    settings = config.worker
    stored = store.load_run(store.current_run())
    trainer: list[ProcessTrainer] = []
    greeting = Greeting(
        worker=settings.name,
        instance=store.instance_id(),
        build=build_name(),
        evaluates=config.evaluates,
        labels=has_labels(config.data),
        client_tests=has_client_tests(config.data, clients),
        device=lambda: (trainer[0].device, trainer[0].device_memory),
    )
    methods: Mapping[str, str] = {name: str(path) for name, path in config.methods.items()}
    trainer_settings = TrainerSettings(
        device=settings.device,
        methods=methods,
        data=data_fields(config.data, str(settings.state_dir / "image-index")),
        max_open_clients=settings.max_open_clients,
        log_level=config.log.level,
        log_format=config.log.format,
    )

    def make_trainer(driver: Driver) -> ProcessTrainer:
        trainer.append(ProcessTrainer(trainer_settings, store, driver.post, driver.progress))
        return trainer[0]

    secure = secure_settings(config)
    session = Session(
        clients={client: stored.rounds.get(client, 0) for client in clients},
        run_id=stored.run_id,
        held={finished.key: finished for finished in stored.held},
        versions=dict(stored.versions),
        adds_up=True,
        max_versions=settings.max_cached_versions,
        newest=stored.newest,
        level=stored.level,
        summed=stored.summed,
        accepts_rollback=settings.accept_rollback,
        terms=SecureTerms(
            least=config.secure_aggregation.level,
            cannot_sign=secure.identity.missing(),
            privacy=config.privacy.mechanism,
            min_noise_multiplier=config.privacy.min_noise_multiplier,
        ),
    )
    tracing: Tracing = NoTracing()
    if exporter is not None:
        tracing = TaskTracing(config.tracing.share, exporter.emit, time.time_ns)
    transport = GrpcTransport(settings.coordinator, channels, greeting, metrics.moved, tracing)
    return Driver(session, store, transport, make_trainer, SystemClock(), metrics, secure, tracing)


def secure_settings(config: WorkerConfig) -> SecureSettings:
    """What this worker is under secure aggregation."""
    own = config.secure_aggregation
    return SecureSettings(
        policy=ParticipantPolicy(
            # A worker that asks for nothing still takes part in what a run demands.
            level=Level.ACTIVE if own.level == "active" else Level.PASSIVE,
            min_participants=own.min_participants,
            min_gamma_ppm=round(own.least_assumed_corrupt * PPM),
            min_set_change=own.min_set_change,
            min_honest_others=own.min_honest_others,
            max_delta_ppm=round(own.max_tolerated_dropout * PPM),
            ring_bits=frozenset(own.ring_bits),
            allow_ring=own.allow_sparse_graph,
        ),
        identity=SecureIdentity(
            name=config.worker.name, folder=config.identity_dir, registry=own.registry, policy=own.policy
        ),
        needs_policy=own.needs_policy,
        max_weight_ratio=own.max_weight_ratio,
        mask_threads=own.mask_threads,
    )


def _stop_on_signals(driver: Driver) -> None:
    """The first signal stops gracefully, the second one at once (also as the first process of a container)."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        log_event(_log, logging.INFO, "stopping", signal=number.name)
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
            signal.signal(name, lambda again, _frame: os._exit(128 + again))
        driver.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    # It ends no daemon of ours: to the coordinator it says that files are new, and a worker looks at its own by itself.
    loop.add_signal_handler(signal.SIGHUP, log_event, _log, logging.INFO, "hangup_ignored")
