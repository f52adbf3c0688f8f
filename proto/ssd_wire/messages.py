"""What worker and coordinator say to each other, as frozen records that compare by value.

A record has the name of its protobuf message, and its fields have the names of that message's fields. The exceptions:
`UpdateKey` is `HeldUpdate` (it names an update wherever that lies), `TaskClient` is `ClientTask` (a method has a
`ClientTask` of its own), `SecureMessage` is `SecureAggregation`, and fates are enumerations without a message around
them. `ssd_wire.to_proto` and `ssd_wire.from_proto` translate. Bytes of blobs and bodies never become records.

Digests of models, blobs, specs, tasks and declarations are lower-case hex SHA-256, 64 characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ssd.privacy.settings import PrivacySettings
from ssd.scaling import ScalingVector
from ssd_wire.task_digest import task_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """The name of a content-addressed blob."""

    digest: str
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """The step from version `number - 1` to `number`."""

    number: int
    blob: BlobRef
    model_digest: str
    """Of the version that the step makes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A model version and how to get it."""

    number: int
    model_digest: str
    full: BlobRef
    """The whole vector, little-endian float32."""
    deltas: tuple[Delta, ...] = ()
    """The last steps that led here, oldest first, without gaps."""

    @property
    def name(self) -> tuple[int, str]:
        """Number and digest. A round that moved nothing makes a new number with the same digest."""
        return self.number, self.model_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """A named float32 array that all clients share, stored as a blob."""

    name: str
    blob: BlobRef
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class UpdateKey:
    """What a client's finished update is addressed to within a run. The attempt is only an envelope around it."""

    client: str
    round: int
    base_digest: str
    task_digest: str


# -------------------------------------------------------------------------------------------- Attend, upwards


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a worker can do."""

    evaluates: bool = False
    """It holds labelled probe data."""
    device: str = "cpu"
    """`cpu`, `cuda` or `other`."""
    device_memory: int = 0
    """Bytes; 0: unknown."""
    labels: bool = False
    """Its clients' images have labels."""
    client_tests: bool = False
    """Its clients have test images of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """What a worker says of itself when it attends: the first message up."""

    worker: str
    instance: str
    """Random id of its state directory, 32 hex digits."""
    clients: Mapping[str, int]
    """Hosted client -> the last round whose commit included it, in the worker's own record; 0: none."""
    run_id: str = ""
    """The run it last worked for."""
    versions_held: tuple[int, ...] = ()
    """Versions of that run that it holds verified on disk."""
    held_updates: tuple[UpdateKey, ...] = ()
    """Finished updates whose fate it does not know."""
    newest: tuple[int, str] = (0, "")
    """Number and model digest of the newest version of that run it ever heard of."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    protocol: tuple[int, int] = (1, 1)
    """Lowest and highest version of the protocol that it speaks."""
    build: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """A sign of life."""

    uptime_seconds: int
    device_memory_used: int
    """Bytes; 0: unknown."""
    busy_share: float
    """Share of the last interval in which the training process was busy, 0-1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a client's training is; equal numbers of steps mean that it is finished and stored."""

    round: int
    attempt: int
    client: str
    step: int
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailed:
    """A client cannot be trained; an empty name means every client that has not finished."""

    round: int
    attempt: int
    client: str
    reason: str
    """A stable snake_case word."""
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionHeld:
    """The worker has a verified copy of a version."""

    number: int
    model_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationDone:
    """The named scalars that answer an `Evaluate`, or why there are none."""

    version: int
    values: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    clients: tuple[str, ...] | None = None
    """The clients that `values` are sums over; None: it was measured on probe data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientsChanged:
    """The worker hosts these clients from now on."""

    clients: Mapping[str, int]
    """As in `Hello`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureMessage:
    """One message of secure aggregation, in either direction; `ssd.secagg.protocol.messages` knows what it says."""

    round_id: bytes
    """16 bytes."""
    content: bytes = b""
    """The canonical encoding; empty if it is in `blob`."""
    blob: BlobRef | None = None
    """Downwards only: where the content is."""


Up = Heartbeat | Progress | TaskFailed | VersionHeld | EvaluationDone | ClientsChanged | SecureMessage
"""Every message up but the hello."""


# ------------------------------------------------------------------------------------------ Attend, downwards


class HeldFate(StrEnum):
    """What a worker does with a finished update that it still holds."""

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
    """The answer to the hello: the first message down."""

    protocol: int
    session: str
    """The token that every data call carries."""
    run_id: str
    declaration: BlobRef
    declaration_digest: str
    held_fates: tuple[HeldFate, ...]
    """One per held update of the hello, in the same order."""
    reinitialise: Mapping[str, int]
    """Clients whose record differs from the coordinator's -> the round it takes over from there, without state."""
    data_endpoints: tuple[str, ...]
    """`host:port` of the data calls; empty: where this stream goes."""
    heartbeat_seconds: float
    update_encoding: str
    delta_encoding: str
    max_cohort: int
    max_client_weight: int
    max_upload_bytes: int
    version: ModelVersion
    """The newest one."""
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
    """One client of a task, with the scaling vector that it trains under."""

    client: str
    scaling: ScalingVector | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train these clients from `base`."""

    round: int
    attempt: int
    base: ModelVersion
    task_digest: str
    run_seed: int
    rounds: int
    """How many the run plans in all."""
    values: Mapping[str, float]
    """The method's schedules, resolved for this round."""
    threads: int
    """Intra-op threads of training."""
    clients: tuple[TaskClient, ...]
    artefacts: tuple[Artefact, ...] = ()
    quality: bool = False
    """Updates end with the declared quality sums."""
    expected_clients: int = 1
    """How many clients share the dimensions of the scaling vectors."""
    sample_digest: str = ""
    """Of the sample in the order of its positions; empty where scaling vectors belong to clients."""
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
    """Upload now what is finished."""

    round: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Measure a version: on the worker's probe data, or on the own test images of each of `clients`."""

    version: ModelVersion
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
    """The coordinator is going away, or wants this worker gone."""

    reason: str
    reconnect_after_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A round was committed."""

    round: int
    version: ModelVersion
    included: tuple[str, ...]
    """Those of this worker's clients that are in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunChanged:
    """The run is finished or was replaced."""

    reason: str
    finished: bool


Down = Welcome | Train | Flush | Evaluate | Cancel | Drain | Committed | RunChanged | SecureMessage
"""Every message down."""
