"""The records that the journal keeps and components exchange: frozen, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.ports.figures import Figures
from ssd.scaling import ScalingVector
from ssd_wire.messages import Artefact, BlobRef

Json = Any


KEPT_CHRONICLES = 1000
"""Attempts of which the store still knows what happened to each client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run: one training job with one method and configuration in it. Written once, at creation."""

    run_id: str
    created_at: float
    """Unix seconds."""
    config: Mapping[str, Json]
    """Every setting that may not change while the run lives."""
    declaration: Mapping[str, Json]
    """`ssd.updates.declaration.Declaration.to_json()`."""
    declaration_blob: BlobRef
    declaration_digest: str
    artefacts: tuple[Artefact, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRecord:
    """A committed model version."""

    number: int
    model_digest: str
    full: BlobRef
    """Raw little-endian float32 vector."""
    delta: BlobRef | None
    """Encoded step from the version before; None for version 0."""
    server_state: Mapping[str, BlobRef] = field(default_factory=dict)
    """What lives with the version and is never served: raw float32 vectors (`residual`, `momentum`) and, as `.npy`
    under `hook.` and its name, each array of the server hook's state."""
    artefacts: tuple[Artefact, ...] = ()
    """The round artefacts its commit made, for the tasks of the next round."""
    round: int = 0
    attempt: int = 0
    committed_at: float = 0.0
    figures: Figures = field(default_factory=Figures)
    """What its round cost and what was told of it."""
    retained: bool = True
    """False once retention has removed the blobs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRecord:
    """One try at a round. `outcome` goes open -> closed -> committed, or open|closed -> abandoned."""

    round: int
    attempt: int
    base_version: int
    base_digest: str
    cohort: tuple[str, ...]
    opened_at: float
    outcome: str = "open"
    reason: str = ""
    accepted: tuple[str, ...] = ()
    """Sorted client ids of the journaled accepted set; empty while open."""
    closed_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptCounts:
    """An `AttemptRecord` without its names: a cohort may have ten thousand."""

    round: int
    attempt: int
    opened_at: float
    outcome: str
    reason: str
    invited: int
    accepted: int
    closed_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientRecord:
    """A registered client."""

    client: str
    registered_at: float
    index: int | None = None
    """Place in the allocation of scaling vectors; None until assigned, never changed after."""
    scaling: ScalingVector | None = None
    last_committed_round: int = 0
    rounds_included: int = 0
    revoked: bool = False
