"""The coordinator over a state directory, in one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from coordinator.composition import compose
from coordinator.config.derived import noise_plan_of, plan_of, policy_of, settings_of
from coordinator.config.sections import CoordinatorConfig
from coordinator.core.strategies.registry import Rates, create
from coordinator.identity.revocations import NobodyRevoked, Revocations
from coordinator.method_host.client import SubprocessMethodHost
from coordinator.parts import Coordinator, Given
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.ports.trust import TrustStore
from coordinator.rounds.restore import restore
from coordinator.rounds.run_lifecycle import privacy_of
from coordinator.runtime.clock import SystemClock
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.files.staging import BudgetedStaging
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.trust import SqliteTrust
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import NoTracing, Tracing
from coordinator.versions.next_version import VersionMaker
from coordinator.workers.sessions import Session
from ssd.digest import canonical_json
from ssd.method.registry import load
from ssd.trust.participants import Registry
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.spec import model_digest


class ManualClock(SystemClock):
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def _tables(
    tmp_path: Path,
    clients: tuple[str, ...],
    evaluation: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    tables: dict[str, Any] = {
        "coordinator": {"state_dir": tmp_path},
        "transport": {"insecure": True},
        "run": {"mode": "reproducible", "rounds": 2, "clients": clients},
        "round": {"cohort_size": len(clients)},
        "limits": {"min_free_bytes": 0},
        "evaluation": evaluation or {"every": 0},
        "method": {"name": "synthetic", "config": {"parameters": 64}},
    }
    for table, values in changes.items():
        tables[table] = {**tables.get(table, {}), **values}
    return tables


def _created(
    store: SqliteJournal, blobs: FileBlobs, config: CoordinatorConfig, clients: tuple[str, ...]
) -> RunRecord:
    """A new run in the journal, with the method's first model as version 0."""
    method = load(config.method.name, config.method.config)
    declaration = method.declare()
    vector = method.initial(0, None)

    def blob(content: bytes):
        writer = blobs.create()
        writer.write(content)
        return writer.finish()

    run = RunRecord(
        run_id="run",
        created_at=0.0,
        config=config.run_config(),
        declaration=declaration.to_json(),
        declaration_blob=blob(canonical_json(declaration.to_json())),
        declaration_digest=declaration.digest,
    )
    store.register_clients(clients, 0.0)
    store.create_run(
        run,
        VersionRecord(
            number=0,
            model_digest=model_digest(declaration.spec, vector),
            full=blob(vector.tobytes()),
            delta=None,
        ),
    )
    return run


def driver(
    tmp_path: Path,
    store: SqliteJournal | None = None,
    *,
    proven: bool = False,
    trust: TrustStore | None = None,
    clients: tuple[str, ...] = ("a", "b"),
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    blobs: FileBlobs | None = None,
    participants: Callable[[], Registry | None] = lambda: None,
    tracing: Tracing | None = None,
    clock: SystemClock | None = None,
    **evaluation: Any,
) -> Coordinator:
    """A coordinator of two clients; `proven`: as under TLS, where workers prove their names.

    Args:
        tmp_path: the state directory.
        store: of an earlier driver, to go on with.
        proven: as said.
        trust: who was revoked.
        clients: of the run.
        changes: tables of the configuration that differ.
        blobs: of an earlier driver, to go on with.
        participants: reads the registry of participants, if the level is active.
        tracing: who is told of what happens.
        clock: another one than the system's.
        evaluation: the table of that name.
    """
    config = CoordinatorConfig.model_validate(_tables(tmp_path, clients, evaluation, changes or {}))
    blobs, clock = blobs or FileBlobs(tmp_path), clock or SystemClock()
    store = store or SqliteJournal(tmp_path)
    run = store.current_run() or _created(store, blobs, config, clients)
    declaration = Declaration.from_json(run.declaration)
    settings = settings_of(config)
    state = restore(policy_of(config, declaration), store, clock, proven=proven)
    plan = plan_of(declaration, config)
    given = Given(
        record=run,
        declaration=declaration,
        plan=plan,
        maker=VersionMaker(declaration, create("average", Rates()), Encoding.FLOAT16, blobs),
        state=state,
        revocations=Revocations(trust or SqliteTrust(tmp_path)) if proven else NobodyRevoked(),
        settings=settings,
        journal=store,
        blobs=blobs,
        staging=BudgetedStaging(tmp_path / "staging", 1 << 20, 1 << 20),
        host=SubprocessMethodHost(),
        state_dir=tmp_path,
        clock=clock,
        metrics=CoordinatorMetrics(),
        participants=participants,
        privacy=privacy_of(noise_plan_of(plan, config), os.urandom),
        tracing=tracing or NoTracing(),
    )
    return compose(given)


def simulate(
    scene: Callable[[Coordinator], Awaitable[None]], subject: Coordinator | Callable[[], Coordinator]
) -> None:
    async def play() -> None:
        # Queues belong to the loop they are used in, so the driver is made inside it.
        each = subject() if callable(subject) else subject
        loop = asyncio.ensure_future(each.driver.run())
        try:
            await scene(each)
        finally:
            each.driver.stop()
            await loop

    asyncio.run(asyncio.wait_for(play(), 60))


async def settle() -> None:
    await asyncio.sleep(0.05)


def messages(session: Session, kind: type) -> list:
    return [each for each in session.outbox._queue if isinstance(each, kind)]  # type: ignore[attr-defined]
