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

from coordinator.config.sections import CoordinatorConfig
from coordinator.config.secure_settings import SecureSettings
from coordinator.core.cohort import deadline_after
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.core.secure_aggregation.participants import Keys
from coordinator.core.state import Attempt, Phase, RunState
from coordinator.errors import ConfigInvalid, MethodRefused
from coordinator.ports.storage import (
    ArtefactRecord,
    AttemptRecord,
    BlobInfo,
    Blobs,
    Clock,
    MethodHost,
    RunRecord,
    Store,
    VersionRecord,
)
from coordinator.rounds.driver import Settings
from coordinator.rounds.preconditions import obstacles
from coordinator.versions.privacy import Privacy
from ssd.digest import byte_view, canonical_json
from ssd.privacy.noise import NoisePlace, NoisePlan, PrivacyRefused, PrivacySettings
from ssd.scaling import block_size
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.protocol.graph import Level
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration, DeclarationError
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import FoldConfigError, FoldPlan

SCRATCH_PREFIX = "init-"
"""Directories in the state directory that hold what the method host makes for version 0; removed at start."""


def policy_of(config: CoordinatorConfig) -> RoundPolicy:
    """The round machine's settings."""
    section = config.round
    return RoundPolicy(
        mode=Mode(config.run.mode),
        rounds=config.run.rounds,
        cohort_size=section.cohort_size,
        seed=config.run.seed,
        min_updates=section.min_updates,
        over_selection=section.over_selection,
        deadline_seconds=section.deadline_seconds,
        deadline_quantile=section.deadline_quantile,
        wait_for_clients_seconds=section.wait_for_clients_seconds,
        retry_seconds=section.retry_seconds,
        max_client_failures=section.max_client_failures,
        expected_clients=None if config.run.clients else config.run.expected_clients,
        named_clients=config.run.clients,
        min_participants=0
        if config.secure_aggregation.level == "off"
        else config.secure_aggregation.min_participants,
    )


def settings_of(config: CoordinatorConfig) -> Settings:
    """The driver's settings."""
    return Settings(
        update_encoding=update_encoding(config).value,
        delta_encoding=config.wire.delta_encoding,
        max_cohort=max_cohort(config),
        max_client_weight=max_client_weight(config),
        expected_clients=expected_clients(config),
        seed=config.run.seed,
        threads=config.run.threads,
        heartbeat_seconds=config.limits.heartbeat_seconds,
        full_versions=config.retention.full_versions,
        deltas=config.retention.deltas,
        evaluation_every=config.evaluation.every,
        evaluation_wait_seconds=config.evaluation.wait_seconds,
        stop_when_finished=config.run.when_done == "exit",
        min_free_bytes=config.limits.min_free_bytes,
        staging_bytes_per_worker=config.limits.staging_bytes_per_worker,
        secure=secure_settings(config),
        transcripts=config.secure_aggregation.transcript,
        privacy=privacy_settings(config),
    )


def update_encoding(config: CoordinatorConfig) -> Encoding:
    """Of updates as they leave a client.

    Under secure aggregation they never leave their host: nothing is saved. Under differential privacy they are clipped,
    and rounding them afterwards could bring them over the bound again.
    """
    if config.secure_aggregation.level != "off" or config.privacy.mechanism != "off":
        return Encoding.FLOAT32
    return Encoding(config.wire.update_encoding)


def secure_settings(config: CoordinatorConfig) -> SecureSettings | None:
    """What the driver needs for secure aggregation; None: it is off."""
    section = config.secure_aggregation
    if section.level == "off":
        return None
    return SecureSettings(
        level=Level(section.level),
        ring_bits=section.ring_bits,
        clip=section.clip,
        max_client_weight=min(section.max_client_weight, max_client_weight(config)),
        max_cohort=max_cohort(config),
        min_participants=section.min_participants,
        assumed_corrupt=section.assumed_corrupt,
        tolerated_dropout=section.tolerated_dropout,
        phase_seconds=section.phase_seconds,
        threads=section.threads,
        elastic=config.run.mode == "elastic",
        keys=Keys(section.keys),
        privacy=privacy_settings(config),
    )


def privacy_settings(config: CoordinatorConfig) -> PrivacySettings | None:
    """The terms of differential privacy; None: it is off."""
    section = config.privacy
    if section.mechanism == "off":
        return None
    place = NoisePlace(section.mechanism)
    return PrivacySettings(
        place=place,
        clip_norm=section.clip_norm,
        noise_multiplier=section.noise_multiplier,
        delta=section.delta,
        min_honest=section.min_honest if place is NoisePlace.DISTRIBUTED else 1,
    )


def noise_plan_of(plan: FoldPlan, config: CoordinatorConfig) -> NoisePlan | None:
    """How much noise a sum holds; None: none.

    Raises:
        ConfigInvalid: the noise cannot be drawn, or does not fit.
    """
    privacy, secure = privacy_settings(config), secure_settings(config)
    if privacy is None:
        return None
    try:
        if secure is not None:
            return MaskedPlan.create(plan, secure.numbers).noise
        return NoisePlan.of(privacy, plan.size, plan.groups[0].scale_bits)
    except (PrivacyRefused, OverflowRisk, FoldConfigError) as error:
        raise ConfigInvalid(f"[privacy] cannot hold: {error}") from error


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


def max_client_weight(config: CoordinatorConfig) -> int:
    """The most often a client counts: under differential privacy all count once."""
    return config.limits.max_client_weight if config.privacy.mechanism == "off" else 1


def max_cohort(config: CoordinatorConfig) -> int:
    """The most clients one round's sum may hold."""
    return math.ceil(config.round.cohort_size * config.round.over_selection)


def expected_clients(config: CoordinatorConfig) -> int:
    """How many clients scaling vectors are laid out for."""
    return config.run.expected_clients or len(config.run.clients) or config.round.cohort_size


def max_clients(config: CoordinatorConfig, declaration: Declaration) -> int | None:
    """How many clients the run can ever hold; None: any number."""
    scaling = declaration.scaling
    if scaling is None or scaling.allocation != "disjoint" or scaling.assignment == "position":
        return None
    return scaling.dimension // block_size(scaling.dimension, expected_clients(config), scaling.block)


def plan_of(declaration: Declaration, config: CoordinatorConfig) -> FoldPlan:
    """The sums' layout and scale.

    Raises:
        ConfigInvalid: the caps could overflow a sum.
    """
    try:
        plan, measuring = (
            FoldPlan.create(
                declaration,
                update_encoding(config),
                max_cohort(config),
                max_client_weight(config),
                quality=quality,
                clip_norm=None if config.privacy.mechanism == "off" else config.privacy.clip_norm,
            )
            # Whether rounds measure quality may change with a restart: those must not overflow either.
            for quality in (False, True)
        )
    except (OverflowRisk, FoldConfigError) as error:
        raise ConfigInvalid(
            f"the sums of this run could overflow: {error}. Lower limits.max_client_weight or round.cohort_size."
        ) from error
    secure = secure_settings(config)
    if secure is not None:
        try:
            MaskedPlan.create(measuring, secure.numbers)
        except (OverflowRisk, FoldConfigError) as error:
            raise ConfigInvalid(
                f"the masked sums of this run could wrap around: {error}. Lower secure_aggregation.max_client_weight or"
                " round.cohort_size, or raise secure_aggregation.ring_bits."
            ) from error
    return plan


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
    config: CoordinatorConfig, store: Store, blobs: Blobs, host: MethodHost, clock: Clock
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
            ArtefactRecord(name=name, blob=_store_file(blobs, path, math.prod(shape)), shape=shape)
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


def _store_file(blobs: Blobs, path: Path, values: int) -> BlobInfo:
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


def restore(config: CoordinatorConfig, declaration: Declaration, store: Store, clock: Clock) -> RunState:
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
