"""What worker and coordinator say to each other, in the worker's own types; `worker.rpc.convert` maps protobuf.

All records are frozen and compare by value. The messages down are at the same time events of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ssd.privacy.settings import PrivacySettings
from ssd.scaling import ScalingVector
from ssd_wire.task_digest import task_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """A content-addressed blob."""

    digest: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaStep:
    """The step from version `number - 1` to `number`."""

    number: int
    blob: Blob
    model_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A model version and how to get it."""

    number: int
    model_digest: str
    full: Blob
    deltas: tuple[DeltaStep, ...] = ()

    @property
    def name(self) -> tuple[int, str]:
        """Number and digest. A round that moved nothing makes a new number with the same digest."""
        return self.number, self.model_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """A named float32 array shared by all clients."""

    name: str
    blob: Blob
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class UpdateKey:
    """What a finished update is addressed to (within a run). The attempt is only an envelope around it."""

    client: str
    round: int
    base_digest: str
    task_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A client's finished training: the update lies in a file, its description here."""

    key: UpdateKey
    weight: int
    seconds: float
    body_size: int
    chunk_digests: bytes
    """SHA-256 of every 1 MiB chunk of the body, concatenated."""
    state_digest: str = ""
    """Hex SHA-256 of the pending client state's file; empty if the method keeps no state."""


# ------------------------------------------------------------------------------------------------------ down


class Fate(StrEnum):
    """What the coordinator wants done with a held update."""

    KEEP = "keep"
    COMMITTED = "committed"
    DISCARDED = "discarded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """How updates are quantised before they are masked."""

    ring_bits: int
    """16, 24 or 32."""
    clip: float
    """Every element of a compressed group is clipped to -clip..clip."""
    max_client_weight: int
    """A client's weight counts at most this much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    """The first message of a session."""

    protocol: int
    session: str
    run_id: str
    declaration: Blob
    declaration_digest: str
    held_fates: tuple[Fate, ...]
    """One per held update of the hello, in the same order."""
    reinitialise: Mapping[str, int]
    """Clients whose record differs from the coordinator's -> the round it takes over from there, without state."""
    data_endpoints: tuple[str, ...]
    heartbeat_seconds: float
    update_encoding: str
    delta_encoding: str
    max_cohort: int
    max_client_weight: int
    max_upload_bytes: int
    version: Version
    build: str = ""
    individual_updates: bool = False
    """The method looks at single updates: every client is uploaded alone."""
    level: str = "off"
    """Of secure aggregation: `off`, `passive` or `active`."""
    masking: Masking | None = None
    """None if the level is `off`."""
    privacy: PrivacySettings | None = None
    """How one client's influence is bounded and hidden; None: it is not."""

    @property
    def clip_norm(self) -> float | None:
        """Largest L2 norm of one client's update; None: there is no such bound."""
        return None if self.privacy is None else self.privacy.clip_norm


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskClient:
    """One client of a task."""

    client: str
    scaling: ScalingVector | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train these clients from `base`."""

    round: int
    attempt: int
    base: Version
    task_digest: str
    run_seed: int
    rounds: int
    values: Mapping[str, float]
    threads: int
    clients: tuple[TaskClient, ...]
    artefacts: tuple[Artefact, ...] = ()
    quality: bool = False
    """Whether updates end with the declared quality sums."""
    expected_clients: int = 1
    """How many clients share the dimensions of the scaling vectors."""
    sample_digest: str = ""
    """Of the round's sample, where scaling vectors belong to positions in it."""
    upload_within_seconds: float = 0.0
    """Seconds from receipt after which what is finished is uploaded; 0: no limit."""

    def key(self, client: str) -> UpdateKey:
        """What this client's finished update will be addressed to."""
        return UpdateKey(
            client=client,
            round=self.round,
            base_digest=self.base.model_digest,
            task_digest=self.task_digest,
        )

    def computed_digest(self, run_id: str, declaration_digest: str) -> str:
        """The task digest as this host computes it from what the task says."""
        return task_digest(
            run_id=run_id,
            round_number=self.round,
            rounds=self.rounds,
            base_digest=self.base.model_digest,
            declaration_digest=declaration_digest,
            run_seed=self.run_seed,
            values=self.values,
            threads=self.threads,
            quality=self.quality,
            expected_clients=self.expected_clients,
            sample_digest=self.sample_digest,
            artefacts={each.name: (each.blob.digest, each.shape) for each in self.artefacts},
        )

    def same_work(self, other: Train) -> bool:
        """Whether a client trained for the one is trained for the other."""
        return self.key("") == other.key("")


@dataclass(frozen=True, kw_only=True, slots=True)
class Flush:
    """Upload what is finished now."""

    round: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Measure a version: on the worker's probe data, or on the own test images of each of `clients`."""

    version: Version
    run_seed: int
    clients: tuple[TaskClient, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    """With clients: what their training would get."""
    threads: int = 1
    """With clients: intra-op threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """Stop the task of an attempt; finished updates are kept."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """The coordinator is going away or wants this worker gone."""

    reason: str
    reconnect_after_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A round was committed; `included` are clients of this worker."""

    round: int
    version: Version
    included: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunChanged:
    """The run was finished or replaced."""

    reason: str
    finished: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureMessage:
    """One message of secure aggregation, in either direction; what it says is `ssd.secagg.protocol.messages`' business."""

    round_id: bytes
    """16 bytes."""
    content: bytes = b""
    """The canonical encoding; empty if it is in `blob`."""
    blob: Blob | None = None
    """Downwards only: where the content is."""


Down = Welcome | Train | Flush | Evaluate | Cancel | Drain | Committed | RunChanged | SecureMessage


# -------------------------------------------------------------------------------------------------------- up


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """What the session decides of the first message up; the shell adds name, instance and capabilities."""

    run_id: str
    clients: Mapping[str, int]
    """Hosted client -> last committed round."""
    versions_held: tuple[int, ...]
    held: tuple[UpdateKey, ...]
    newest: tuple[int, str] = (0, "")
    """Number and model digest of the newest version of the run it heard of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a client's training is; equal numbers: finished and stored."""

    round: int
    attempt: int
    client: str
    step: int
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailed:
    """A client (empty: every client not yet finished) cannot be trained."""

    round: int
    attempt: int
    client: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionHeld:
    """The worker's verified copy of a version."""

    number: int
    model_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationDone:
    """The named scalars of an evaluation, or why there are none."""

    version: int
    values: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    clients: tuple[str, ...] | None = None
    """Those that `values` are sums over; None: measured on probe data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """Sign of life."""

    uptime_seconds: int
    device_memory_used: int
    busy_share: float


Up = Progress | TaskFailed | VersionHeld | EvaluationDone | Heartbeat | SecureMessage


# ------------------------------------------------------------------------------------------------------- data


class UploadFate(StrEnum):
    """What became of an upload."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DISCARDED = "discarded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The coordinator's last word on an upload."""

    fate: UploadFate
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """What an upload says of itself before its body."""

    run_id: str
    round: int
    attempt: int
    base_digest: str
    spec_digest: str
    task_digest: str
    fold: bool
    clients: tuple[tuple[str, int, float], ...]
    """(client, weight, training seconds)."""
    body_size: int
    chunk_digests: bytes
    secure_round: bytes = b""
    """Of a masked upload: the round id of its keys. Its clients' weights are 0: they are inside the masked vector."""
    sharers_digest: bytes = b""
    """Of a masked upload: the set the masks are made for."""
