"""Creating a run and picking one up again: from configuration and journal to the driver's starting state."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator.config.derived import max_clients, noise_plan_of, plan_of, policy_of
from coordinator.config.sections import CoordinatorConfig
from coordinator.core.cohort import deadline_after
from coordinator.core.policy import Mode
from coordinator.core.state import Attempt, Phase, RunState
from coordinator.errors import ConfigInvalid, MethodRefused
from coordinator.ports.blobs import Blobs
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.method_host import MethodHost
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.rounds.preconditions import obstacles
from coordinator.versions.privacy import Privacy
from ssd.digest import byte_view, canonical_json
from ssd.privacy.settings import PrivacyRefused
from ssd.updates.declaration import Declaration, DeclarationError
from ssd.updates.fold import FoldPlan
from ssd_wire.messages import Artefact, BlobRef

SCRATCH_PREFIX = "init-"
"""Directories in the state directory that hold what the method host makes for version 0; removed at start."""


async def checked_declaration(config: CoordinatorConfig, host: MethodHost) -> Declaration:
    """What the method declares under this configuration, if a run can be made of the two. Nothing is written.

    Raises:
        ConfigInvalid, MethodRefused: it cannot, and what to change.
    """
    method = config.method.name
    try:
        declaration = Declaration.from_json(await host.declare(method, dict(config.method.config)))
    except DeclarationError as error:
        raise MethodRefused(f"method {method} declares itself badly: {error}") from error
    if declaration.scaling is not None and not (config.run.clients or config.run.expected_clients):
        raise ConfigInvalid(
            f"method {method} gives every client its own dimensions: set run.expected_clients (or name them in"
            " run.clients), so that they can be shared out"
        )
    private = config.privacy.mechanism != "off"
    found = list(
        obstacles(declaration, Mode(config.run.mode), config.secure_aggregation.level, private=private)
    )
    if found:
        raise ConfigInvalid("this run cannot be created: " + "; ".join(found))
    privacy_of(config, plan_of(declaration, config), os.urandom)
    return declaration


async def create_run(
    config: CoordinatorConfig, store: Journal, blobs: Blobs, host: MethodHost, clock: Clock
) -> RunRecord:
    """Make version 0 and journal the run.

    Raises:
        ConfigInvalid, MethodRefused, StorageFailed: nothing was journaled.
    """
    method, method_config = config.method.name, dict(config.method.config)
    declaration = await checked_declaration(config, host)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=config.coordinator.state_dir))
    try:
        initial = await host.initial(method, method_config, config.run.seed, config.run.warm_start, scratch)
        full = _store_file(blobs, initial.vector, declaration.spec.size)
        digest = hashlib.sha256(bytes.fromhex(declaration.spec.digest))
        digest.update(initial.vector.read_bytes())
        artefacts = tuple(
            Artefact(name=name, blob=_store_file(blobs, path, math.prod(shape)), shape=shape)
            for name, (path, shape) in sorted(initial.artefacts.items())
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document = canonical_json(declaration.to_json())
    writer = blobs.create()
    writer.write(document)
    run = RunRecord(
        run_id=secrets.token_hex(8),
        created_at=clock.wall(),
        config=config.run_config(),
        declaration=declaration.to_json(),
        declaration_blob=writer.finish(),
        declaration_digest=declaration.digest,
        artefacts=artefacts,
    )
    zero = VersionRecord(
        number=0,
        model_digest=digest.hexdigest(),
        full=full,
        delta=None,
        committed_at=clock.wall(),
    )
    # First the clients: a crash in between leaves a registry that the next start completes.
    if config.run.clients:
        store.register_clients(config.run.clients, clock.wall())
    store.create_run(run, zero)
    return run


def _store_file(blobs: Blobs, path: Path, values: int) -> BlobRef:
    content = np.fromfile(path, dtype="<f4")
    if content.size != values or not np.isfinite(content).all():
        raise MethodRefused(
            f"the method's {path.name} should hold {values} finite float32 values, not {content.size}"
        )
    writer = blobs.create()
    try:
        writer.write(byte_view(content))
        return writer.finish()
    except BaseException:
        writer.discard()
        raise


def restore(config: CoordinatorConfig, declaration: Declaration, store: Journal, clock: Clock) -> RunState:
    """The state the journal amounts to. An attempt under way goes on; its updates come from the workers again."""
    policy = replace(policy_of(config), max_clients=max_clients(config, declaration))
    version = store.versions()[-1].number
    records = store.clients()
    state = RunState(
        policy=policy,
        version=version,
        clients=frozenset(record.client for record in records if not record.revoked),
        revoked=frozenset(record.client for record in records if record.revoked),
        indexes={record.client: record.index for record in records if record.index is not None},
        bindings=None if config.transport.insecure else store.bindings(),
        granted_workers=store.granted_workers(),
        paused=store.flag("paused"),
        waiting_since=clock.monotonic(),
    )
    attempts = [attempt for attempt in store.attempts() if attempt.round == version + 1]
    if not attempts:
        return state
    newest = attempts[0]
    made = max(attempt.attempt for attempt in attempts)
    if newest.outcome not in ("open", "closed"):
        return replace(state, attempts_made=made)
    now = clock.monotonic()
    after = deadline_after(policy, ())
    closed = newest.outcome == "closed"
    if policy.secure:
        return _restore_masked(replace(state, attempts_made=made), newest, now)
    members = newest.accepted if closed else [c for c in newest.cohort if c not in state.revoked]
    attempt = Attempt(
        round=newest.round,
        number=newest.attempt,
        cohort=tuple(sorted(members)),
        goal=len(members) if closed else min(policy.cohort_size, len(members)),
        opened_at=now,
        deadline_at=None if after is None else now + after,
        restored=closed,
    )
    return replace(state, attempts_made=made, attempt=attempt, phase=Phase.TRAINING)


def _restore_masked(state: RunState, newest: AttemptRecord, now: float) -> RunState:
    """With a journaled set the opening of its sum goes on; without, the attempt's keys were lost with the process."""
    closed = newest.outcome == "closed"
    members = tuple(sorted(newest.accepted if closed else newest.cohort))
    attempt = Attempt(
        round=newest.round,
        number=newest.attempt,
        cohort=members,
        goal=len(members),
        opened_at=now,
        deadline_at=None,
        accepted=frozenset(members) if closed else frozenset(),
        closed=closed,
        doomed="" if closed else "coordinator_restarted: its keys were lost with the process",
    )
    return replace(state, attempt=attempt, phase=Phase.UNMASKING if closed else Phase.TRAINING)


def privacy_of(config: CoordinatorConfig, plan: FoldPlan, entropy: Callable[[int], bytes]) -> Privacy | None:
    """The run's noise and its account; None: there is none.

    Args:
        config: the coordinator's.
        plan: of the run's updates.
        entropy: n secret uniform bytes.

    Raises:
        ConfigInvalid: it cannot hold, or not be accounted for.
    """
    noise = noise_plan_of(plan, config)
    if noise is None:
        return None
    try:
        return Privacy(noise, entropy)
    except PrivacyRefused as error:
        raise ConfigInvalid(f"[privacy] {error}") from error
