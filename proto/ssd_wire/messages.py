"""What the coordinator says to an attending worker, in its own types; `ssd_wire.convert` makes protobuf of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ssd.privacy.settings import PrivacySettings
from ssd.scaling import ScalingVector


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """One step of the delta chain."""

    number: int
    blob: BlobRef
    model_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A version and how to get it."""

    number: int
    model_digest: str
    full: BlobRef
    deltas: tuple[Delta, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Down:
    """A message to one worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """What a worker must know before its first offer."""

    level: str
    ring_bits: int
    clip: float
    max_client_weight: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome(Down):
    """The first message of a session."""

    protocol: int
    session: str
    run_id: str
    declaration: BlobRef
    declaration_digest: str
    held_fates: tuple[HeldFate, ...]
    reinitialise: Mapping[str, int]
    data_endpoints: tuple[str, ...]
    heartbeat_seconds: float
    update_encoding: str
    delta_encoding: str
    max_cohort: int
    max_client_weight: int
    max_upload_bytes: int
    version: ModelVersion
    individual_updates: bool = False
    """Every client's update is uploaded alone, no folds."""
    masking: Masking | None = None
    """How updates are masked; None: they are not."""
    privacy: PrivacySettings | None = None
    """How one client's influence is bounded and hidden; None: it is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train(Down):
    """Train these clients from `base`."""

    round: int
    attempt: int
    base: ModelVersion
    task_digest: str
    run_seed: int
    rounds: int
    values: Mapping[str, float]
    threads: int
    expected_clients: int
    """How many clients share the dimensions of the scaling vectors."""
    sample_digest: str
    """Of the sample in the order of its positions; empty where scaling vectors belong to clients."""
    clients: tuple[tuple[str, ScalingVector | None], ...]
    artefacts: tuple[Artefact, ...]
    upload_within: float
    quality: bool = False
    """Whether updates end with the declared quality sums."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureMessage(Down):
    """One message of secure aggregation, or where to fetch it."""

    round_id: bytes
    message: bytes = b""
    blob: BlobRef | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel(Down):
    """Stop the task of an attempt."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate(Down):
    """Measure a version on probe data, or on these clients' own test images."""

    version: ModelVersion
    run_seed: int
    clients: tuple[tuple[str, ScalingVector | None], ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    threads: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationDone:
    """A worker's answer to `Evaluate`."""

    version: int
    values: Mapping[str, float]
    error: str
    clients: tuple[str, ...] | None = None
    """Those that `values` are sums over; None: measured on probe data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed(Down):
    """A round was committed; `included` are the worker's own clients in it."""

    round: int
    version: ModelVersion
    included: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain(Down):
    """The coordinator is going away."""

    reason: str
    reconnect_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunChanged(Down):
    """The run is finished or was replaced."""

    reason: str
    finished: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a worker can do."""

    evaluates: bool = False
    device: str = "cpu"
    labels: bool = False
    """Its clients' images have labels."""
    client_tests: bool = False
    """Its clients have test images of their own."""


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
    clients: Mapping[str, int]
    """Client -> integer weight."""
    training_seconds: Mapping[str, float]
    body_size: int
    chunk_digests: tuple[bytes, ...]
    digest: str
    """SHA-256 of the envelope's bytes: the key of a partial upload."""
    duplicate_clients: bool = False
    """A client is named twice."""
    masked: bool = False
    """A worker's fold under its masks; its weights are 0, for they are inside."""
    secure_round: bytes = b""
    """Masked: the round id of its keys."""
    sharers_digest: bytes = b""
    """Masked: the set of sharers its masks were made for."""

    @property
    def weight(self) -> int:
        """Total weight."""
        return sum(self.clients.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The fate of an upload."""

    fate: UploadFate
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """A stored blob."""

    digest: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """A named float32 array of the run, stored as a blob."""

    name: str
    blob: BlobRef
    shape: tuple[int, ...]


class HeldFate(StrEnum):
    """What a worker does with a finished update it still holds."""

    KEEP = "keep"
    COMMITTED = "committed"
    DISCARDED = "discarded"


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateKey:
    """One finished update in a worker's store."""

    client: str
    round: int
    base_digest: str
    task_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a worker says of itself when it attends."""

    worker: str
    instance: str
    clients: Mapping[str, int]
    """Client -> the last round whose commit included it, in the worker's own record."""
    held: tuple[UpdateKey, ...] = ()
    run_id: str = ""
    newest: tuple[int, str] = (0, "")
    """Number and model digest of the newest version of that run the worker ever heard of."""


class UploadFate(StrEnum):
    """What happened to a message."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DISCARDED = "discarded"
