"""What a worker is told when it attends: the run, and what becomes of the work and state it still holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.config.secure_settings import SecureSettings
from coordinator.core.registry import held_fate
from coordinator.ports.records import RunRecord
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.versions.catalogue import Catalogue
from ssd.daemon.logs import event as log_event
from ssd.privacy.settings import PrivacySettings
from ssd.updates.declaration import Declaration
from ssd.updates.fold import FoldPlan
from ssd_wire.messages import HeldFate, Hello, Welcome

log = logging.getLogger(__name__)

BUILD = "ssd-federated/0.1.0"
"""The name of the coordinator's build; only for display."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTerms:
    """What every worker of a run is told alike."""

    run: RunRecord
    declaration: Declaration
    plan: FoldPlan
    update_encoding: str
    delta_encoding: str
    heartbeat_seconds: float
    data_endpoints: tuple[str, ...]
    max_upload_bytes: int
    secure: SecureSettings | None = None
    privacy: PrivacySettings | None = None


def welcome(
    terms: RunTerms,
    hello: Hello,
    *,
    token: str,
    protocol: int,
    accepted_sets: Mapping[int, frozenset[str]],
    catalogue: Catalogue,
    committed_rounds: Mapping[str, int],
    metrics: CoordinatorMetrics,
) -> Welcome:
    """The welcome for one worker."""
    _compare_histories(terms, hello, catalogue, metrics)
    fates = _held_fates(terms, hello, accepted_sets, catalogue, committed_rounds)
    return Welcome(
        protocol=protocol,
        session=token,
        run_id=terms.run.run_id,
        declaration=terms.run.declaration_blob,
        declaration_digest=terms.run.declaration_digest,
        held_fates=fates,
        reinitialise=_reinitialise(terms, hello, fates, committed_rounds, metrics),
        data_endpoints=terms.data_endpoints,
        heartbeat_seconds=terms.heartbeat_seconds,
        update_encoding=terms.update_encoding,
        delta_encoding=terms.delta_encoding,
        max_cohort=terms.plan.max_cohort,
        max_client_weight=terms.plan.max_client_weight,
        max_upload_bytes=terms.max_upload_bytes,
        version=catalogue.offer(),
        build=BUILD,
        individual_updates=terms.declaration.collects,
        level="off" if terms.secure is None else terms.secure.level.value,
        masking=None if terms.secure is None else terms.secure.masking,
        privacy=terms.privacy,
    )


def _compare_histories(
    terms: RunTerms, hello: Hello, catalogue: Catalogue, metrics: CoordinatorMetrics
) -> None:
    """Say so if a worker saw what the journal does not have; the worker itself decides what follows from it."""
    number, digest = hello.newest
    if hello.run_id != terms.run.run_id or not digest or catalogue.digests.get(number) == digest:
        return
    metrics.history_contradicted()
    log_event(
        log,
        logging.ERROR,
        "history_contradicted",
        worker=hello.worker,
        worker_version=number,
        worker_digest=digest[:64],
        version=catalogue.newest.number,
        detail="the worker saw a version that this journal does not have: is the state directory an older backup?",
    )


def _held_fates(
    terms: RunTerms,
    hello: Hello,
    accepted_sets: Mapping[int, frozenset[str]],
    catalogue: Catalogue,
    committed_rounds: Mapping[str, int],
) -> tuple[HeldFate, ...]:
    if hello.run_id != terms.run.run_id:
        return tuple(HeldFate.DISCARDED for _ in hello.held_updates)
    return tuple(
        held_fate(
            held,
            current_base_digest=catalogue.newest.model_digest,
            digests=catalogue.digests,
            committed_rounds=committed_rounds,
            was_included=held.client in accepted_sets.get(held.round, frozenset()),
        )
        for held in hello.held_updates
    )


def _reinitialise(
    terms: RunTerms,
    hello: Hello,
    fates: tuple[HeldFate, ...],
    committed_rounds: Mapping[str, int],
    metrics: CoordinatorMetrics,
) -> dict[str, int]:
    """Clients whose record at the worker is not ours (lost disk, old backup, moved client): declared, never silent."""
    # A worker that comes from another run starts this one without any record.
    theirs = dict(hello.clients) if hello.run_id == terms.run.run_id else dict.fromkeys(hello.clients, 0)
    for held, fate in zip(hello.held_updates, fates, strict=True):
        if fate is HeldFate.COMMITTED:
            theirs[held.client] = held.round
    changed = {
        client: committed_rounds.get(client, 0)
        for client, record in theirs.items()
        if record != committed_rounds.get(client, 0)
    }
    if terms.declaration.persists_client_state:
        for client, record in sorted(changed.items()):
            metrics.client_reinitialised()
            log_event(
                log,
                logging.WARNING,
                "client_reinitialised",
                client=client,
                worker=hello.worker,
                worker_record=theirs[client],
                coordinator_record=record,
            )
    return changed
