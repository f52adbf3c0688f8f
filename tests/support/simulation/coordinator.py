"""The coordinator of a simulation: the one place that composes the production parts, as `coordinator.app` does.

Its journal, blobs, driver, servicers and interceptors are the product's. What is ours: the clock, the medium under
the stores, the network in place of sockets, and who is calling.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.composition import compose
from coordinator.config.derived import noise_plan_of, plan_of, policy_of, settings_of
from coordinator.config.new_run import new_run_of
from coordinator.config.sections import CoordinatorConfig, refuse_changes
from coordinator.core.strategies.registry import create as create_strategy
from coordinator.errors import StorageFailed
from coordinator.identity.revocations import Revocations
from coordinator.parts import Coordinator as Parts
from coordinator.parts import Given
from coordinator.ports.records import RunRecord
from coordinator.rounds.restore import restore
from coordinator.rounds.run_lifecycle import create_run, privacy_of
from coordinator.rpc.federation.servicer import FederationServicer
from coordinator.rpc.interceptors.first_message import FirstMessage
from coordinator.rpc.interceptors.gate import Gate
from coordinator.rpc.operator.servicer import OperatorServicer
from coordinator.runtime import durable_writes, memory
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.files.staging import BudgetedStaging
from coordinator.store.journal import chain
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.trust import SqliteTrust
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import NoTracing, Tracing
from coordinator.versions import next_version
from coordinator.versions.next_version import VersionMaker
from rounds.in_process_host import InProcessHost
from simulation.guarded import JOURNAL_WRITES, Guarded, GuardedBlobs, Writes
from simulation.net.network import Listener, Network
from simulation.processes import Process
from simulation.virtual_time import InlineExecutor, VirtualLoop
from ssd.trust.names import Role, Subject
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration

EPOCH = 1_700_000_000.0
"""Unix seconds at virtual second 0."""


class Clock:
    """`coordinator.ports.clock.Clock` on virtual time; somebody may set the wall clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.jumped = 0.0

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return EPOCH + self._loop.time() + self.jumped


class NamedPeers:
    """`coordinator.ports.identity.Identity`: the network says who is calling, as a certificate would."""

    def subject(self, auth_context: Mapping[str, Sequence[bytes]]) -> Subject:
        name = auth_context["peer"][0].decode()
        return Subject("federation", Role.OPERATOR if name == "operator" else Role.WORKER, name)


class _BlockedWait:
    """`threading.Event` whose wait lets virtual time pass, for the one wait of the product's threads."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if not self._set:
            loop.advance(seconds)
        return self._set


@contextlib.contextmanager
def threadless() -> Iterator[None]:
    """Take away the threads that the coordinator's code starts for itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable_writes, "threading", SimpleNamespace(Event=_BlockedWait))
        patch.setattr(next_version, "ThreadPoolExecutor", InlineExecutor)
        # The allocator's own business; it takes milliseconds an upload.
        patch.setattr(memory, "_malloc_trim", None)
        yield


class Coordinator:
    """One life of the coordinator."""

    def __init__(
        self,
        state_dir: Path,
        tables: Mapping[str, Any],
        loop: VirtualLoop,
        network: Network,
        clock: Clock,
        process: Process,
        tracing: Tracing | None = None,
    ) -> None:
        self.process = process
        self.writes = Writes(process, loop.time, StorageFailed)
        self.parts: Parts | None = None
        self.metrics = CoordinatorMetrics("simulated", clock.monotonic)
        self._state_dir = state_dir
        self._config = CoordinatorConfig.model_validate({**tables, "coordinator": {"state_dir": state_dir}})
        self._network = network
        self._clock = clock
        self._tracing: Tracing = tracing or NoTracing()
        self.journal: Any = None
        self._close: list[Callable[[], None]] = []
        process.on_death.append(lambda: network.part(process))
        self.task = process.spawn(self._live())

    async def _live(self) -> None:
        try:
            parts = await self._compose()
            await parts.driver.run()
        finally:
            for close in self._close:
                close()
            self._network.part(self.process)

    async def _compose(self) -> Parts:
        config, clock, process = self._config, self._clock, self.process
        own_journal, own_blobs = SqliteJournal(self._state_dir), FileBlobs(self._state_dir)
        trust = SqliteTrust(self._state_dir)
        self._close += [own_journal.close, trust.close]
        journal: Any = Guarded(own_journal, process, self.writes, JOURNAL_WRITES)
        self.journal = journal
        blobs: Any = GuardedBlobs(own_blobs, process, self.writes)
        host = InProcessHost()
        run = await self._current_run(journal, blobs, host)
        declaration = Declaration.from_json(run.declaration)
        plan, settings = plan_of(declaration, config), settings_of(config)
        strategy = create_strategy(config.strategy.name, config.strategy.rates)
        revocations = Revocations(Guarded(trust, process, self.writes, {"revoke"}))  # type: ignore[arg-type]
        staging = BudgetedStaging(
            self._state_dir / "staging", config.limits.staging_ram_bytes, config.limits.staging_disk_bytes
        )
        parts = self.parts = compose(
            Given(
                record=run,
                declaration=declaration,
                plan=plan,
                maker=VersionMaker(declaration, strategy, Encoding(config.wire.delta_encoding), blobs),
                state=restore(policy_of(config, declaration), journal, clock, proven=True),
                settings=settings,
                journal=journal,
                blobs=blobs,
                staging=staging,
                host=host,
                state_dir=self._state_dir,
                clock=clock,
                metrics=self.metrics,
                revocations=revocations,
                privacy=privacy_of(noise_plan_of(plan, config), os.urandom),
                tracing=self._tracing,
            )
        )
        parts.catalogue.verify_newest()
        attempt = parts.machine.state.attempt
        if not attempt or not attempt.restored:
            parts.catalogue.remove_orphans()
        self._serve(parts)
        process.spawn(revocations.watch())
        return parts

    async def _current_run(self, journal: Any, blobs: Any, host: InProcessHost) -> RunRecord:
        current: RunRecord | None = journal.current_run()
        if current is None:
            return await create_run(new_run_of(self._config), journal, blobs, host, self._clock)
        chain.verify(journal)
        refuse_changes(current.config, self._config)
        journal.register_clients(self._config.run.clients, self._clock.wall())
        return current

    def _serve(self, parts: Parts) -> None:
        identity, limits = NamedPeers(), self._config.limits
        federation = FederationServicer(
            attendance=parts.attendance,
            sessions=parts.sessions,
            downloads=parts.downloads,
            uploads=parts.uploads,
            identity=identity,
            limits=limits,
            metrics=self.metrics,
            tracing=self._tracing,
        )
        operator = OperatorServicer(
            reports=parts.reports,
            gauges=parts.gauges,
            driver=parts.driver,
            ownership=parts.ownership,
            identity=identity,
            metrics=self.metrics,
            clock=self._clock,
            stall_seconds=limits.stall_seconds,
        )
        self._network.listener = Listener(
            process=self.process,
            handlers=(federation.handler(), operator.handler()),
            interceptors=(
                Gate(identity, parts.given.revocations, self.metrics, limits),
                FirstMessage(self.metrics, limits.handshake_seconds),
            ),
        )
