from ssd_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "heartbeat", "progress", "task_failed", "version_held", "evaluation_done", "clients_changed", "secure_aggregation")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    TASK_FAILED_FIELD_NUMBER: _ClassVar[int]
    VERSION_HELD_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_DONE_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SECURE_AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    progress: Progress
    task_failed: TaskFailed
    version_held: VersionHeld
    evaluation_done: EvaluationDone
    clients_changed: ClientsChanged
    secure_aggregation: SecureAggregation
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., task_failed: _Optional[_Union[TaskFailed, _Mapping]] = ..., version_held: _Optional[_Union[VersionHeld, _Mapping]] = ..., evaluation_done: _Optional[_Union[EvaluationDone, _Mapping]] = ..., clients_changed: _Optional[_Union[ClientsChanged, _Mapping]] = ..., secure_aggregation: _Optional[_Union[SecureAggregation, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_min", "protocol_max", "build", "worker", "instance", "clients", "run_id", "versions_held", "held_updates", "capabilities", "newest_version", "newest_digest", "more")
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_HELD_FIELD_NUMBER: _ClassVar[int]
    HELD_UPDATES_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NEWEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    protocol_min: int
    protocol_max: int
    build: str
    worker: str
    instance: str
    clients: _containers.RepeatedCompositeFieldContainer[HostedClient]
    run_id: str
    versions_held: _containers.RepeatedScalarFieldContainer[int]
    held_updates: _containers.RepeatedCompositeFieldContainer[HeldUpdate]
    capabilities: Capabilities
    newest_version: int
    newest_digest: str
    more: bool
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., build: _Optional[str] = ..., worker: _Optional[str] = ..., instance: _Optional[str] = ..., clients: _Optional[_Iterable[_Union[HostedClient, _Mapping]]] = ..., run_id: _Optional[str] = ..., versions_held: _Optional[_Iterable[int]] = ..., held_updates: _Optional[_Iterable[_Union[HeldUpdate, _Mapping]]] = ..., capabilities: _Optional[_Union[Capabilities, _Mapping]] = ..., newest_version: _Optional[int] = ..., newest_digest: _Optional[str] = ..., more: bool = ...) -> None: ...

class HostedClient(_message.Message):
    __slots__ = ("client", "last_committed_round")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    LAST_COMMITTED_ROUND_FIELD_NUMBER: _ClassVar[int]
    client: str
    last_committed_round: int
    def __init__(self, client: _Optional[str] = ..., last_committed_round: _Optional[int] = ...) -> None: ...

class Capabilities(_message.Message):
    __slots__ = ("evaluates", "device", "device_memory", "labels", "client_tests")
    EVALUATES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TESTS_FIELD_NUMBER: _ClassVar[int]
    evaluates: bool
    device: str
    device_memory: int
    labels: bool
    client_tests: bool
    def __init__(self, evaluates: bool = ..., device: _Optional[str] = ..., device_memory: _Optional[int] = ..., labels: bool = ..., client_tests: bool = ...) -> None: ...

class HeldUpdate(_message.Message):
    __slots__ = ("client", "round", "base_digest", "task_digest")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TASK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    client: str
    round: int
    base_digest: str
    task_digest: str
    def __init__(self, client: _Optional[str] = ..., round: _Optional[int] = ..., base_digest: _Optional[str] = ..., task_digest: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("uptime_seconds", "device_memory_used", "busy_share")
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_USED_FIELD_NUMBER: _ClassVar[int]
    BUSY_SHARE_FIELD_NUMBER: _ClassVar[int]
    uptime_seconds: int
    device_memory_used: int
    busy_share: float
    def __init__(self, uptime_seconds: _Optional[int] = ..., device_memory_used: _Optional[int] = ..., busy_share: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("round", "attempt", "client", "step", "steps", "seconds")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    client: str
    step: int
    steps: int
    seconds: float
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ..., client: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class TaskFailed(_message.Message):
    __slots__ = ("round", "attempt", "client", "reason", "detail")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    client: str
    reason: str
    detail: str
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ..., client: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class VersionHeld(_message.Message):
    __slots__ = ("number", "model_digest")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    number: int
    model_digest: str
    def __init__(self, number: _Optional[int] = ..., model_digest: _Optional[str] = ...) -> None: ...

class EvaluationDone(_message.Message):
    __slots__ = ("version", "values", "error", "clients", "on_clients")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    ON_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    values: _containers.ScalarMap[str, float]
    error: str
    clients: _containers.RepeatedScalarFieldContainer[str]
    on_clients: bool
    def __init__(self, version: _Optional[int] = ..., values: _Optional[_Mapping[str, float]] = ..., error: _Optional[str] = ..., clients: _Optional[_Iterable[str]] = ..., on_clients: bool = ...) -> None: ...

class ClientsChanged(_message.Message):
    __slots__ = ("clients",)
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[HostedClient]
    def __init__(self, clients: _Optional[_Iterable[_Union[HostedClient, _Mapping]]] = ...) -> None: ...

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "train", "flush", "evaluate", "cancel", "drain", "committed", "run_changed", "secure_aggregation")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    RUN_CHANGED_FIELD_NUMBER: _ClassVar[int]
    SECURE_AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    train: Train
    flush: Flush
    evaluate: Evaluate
    cancel: Cancel
    drain: Drain
    committed: Committed
    run_changed: RunChanged
    secure_aggregation: SecureAggregation
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., train: _Optional[_Union[Train, _Mapping]] = ..., flush: _Optional[_Union[Flush, _Mapping]] = ..., evaluate: _Optional[_Union[Evaluate, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., committed: _Optional[_Union[Committed, _Mapping]] = ..., run_changed: _Optional[_Union[RunChanged, _Mapping]] = ..., secure_aggregation: _Optional[_Union[SecureAggregation, _Mapping]] = ...) -> None: ...

class SecureAggregation(_message.Message):
    __slots__ = ("round_id", "message", "blob")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    round_id: bytes
    message: bytes
    blob: _tensor_pb2.BlobRef
    def __init__(self, round_id: _Optional[bytes] = ..., message: _Optional[bytes] = ..., blob: _Optional[_Union[_tensor_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "session", "run_id", "declaration", "declaration_digest", "held_fates", "reinitialise", "data_endpoints", "heartbeat_seconds", "update_encoding", "delta_encoding", "max_cohort", "max_client_weight", "max_upload_bytes", "build", "version", "individual_updates", "secure_aggregation_level", "masking", "privacy")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DECLARATION_FIELD_NUMBER: _ClassVar[int]
    DECLARATION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_FATES_FIELD_NUMBER: _ClassVar[int]
    REINITIALISE_FIELD_NUMBER: _ClassVar[int]
    DATA_ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ENCODING_FIELD_NUMBER: _ClassVar[int]
    DELTA_ENCODING_FIELD_NUMBER: _ClassVar[int]
    MAX_COHORT_FIELD_NUMBER: _ClassVar[int]
    MAX_CLIENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INDIVIDUAL_UPDATES_FIELD_NUMBER: _ClassVar[int]
    SECURE_AGGREGATION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    MASKING_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    session: str
    run_id: str
    declaration: _tensor_pb2.BlobRef
    declaration_digest: str
    held_fates: _containers.RepeatedCompositeFieldContainer[HeldFate]
    reinitialise: _containers.RepeatedCompositeFieldContainer[HostedClient]
    data_endpoints: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_seconds: float
    update_encoding: str
    delta_encoding: str
    max_cohort: int
    max_client_weight: int
    max_upload_bytes: int
    build: str
    version: _tensor_pb2.ModelVersion
    individual_updates: bool
    secure_aggregation_level: str
    masking: Masking
    privacy: Privacy
    def __init__(self, protocol: _Optional[int] = ..., session: _Optional[str] = ..., run_id: _Optional[str] = ..., declaration: _Optional[_Union[_tensor_pb2.BlobRef, _Mapping]] = ..., declaration_digest: _Optional[str] = ..., held_fates: _Optional[_Iterable[_Union[HeldFate, _Mapping]]] = ..., reinitialise: _Optional[_Iterable[_Union[HostedClient, _Mapping]]] = ..., data_endpoints: _Optional[_Iterable[str]] = ..., heartbeat_seconds: _Optional[float] = ..., update_encoding: _Optional[str] = ..., delta_encoding: _Optional[str] = ..., max_cohort: _Optional[int] = ..., max_client_weight: _Optional[int] = ..., max_upload_bytes: _Optional[int] = ..., build: _Optional[str] = ..., version: _Optional[_Union[_tensor_pb2.ModelVersion, _Mapping]] = ..., individual_updates: bool = ..., secure_aggregation_level: _Optional[str] = ..., masking: _Optional[_Union[Masking, _Mapping]] = ..., privacy: _Optional[_Union[Privacy, _Mapping]] = ...) -> None: ...

class Privacy(_message.Message):
    __slots__ = ("place", "clip_norm", "noise_multiplier", "delta", "min_honest")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    MIN_HONEST_FIELD_NUMBER: _ClassVar[int]
    place: str
    clip_norm: float
    noise_multiplier: float
    delta: float
    min_honest: int
    def __init__(self, place: _Optional[str] = ..., clip_norm: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., delta: _Optional[float] = ..., min_honest: _Optional[int] = ...) -> None: ...

class Masking(_message.Message):
    __slots__ = ("ring_bits", "clip", "max_client_weight")
    RING_BITS_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    MAX_CLIENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ring_bits: int
    clip: float
    max_client_weight: int
    def __init__(self, ring_bits: _Optional[int] = ..., clip: _Optional[float] = ..., max_client_weight: _Optional[int] = ...) -> None: ...

class HeldFate(_message.Message):
    __slots__ = ("fate",)
    class Fate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FATE_UNSPECIFIED: _ClassVar[HeldFate.Fate]
        FATE_KEEP: _ClassVar[HeldFate.Fate]
        FATE_COMMITTED: _ClassVar[HeldFate.Fate]
        FATE_DISCARDED: _ClassVar[HeldFate.Fate]
    FATE_UNSPECIFIED: HeldFate.Fate
    FATE_KEEP: HeldFate.Fate
    FATE_COMMITTED: HeldFate.Fate
    FATE_DISCARDED: HeldFate.Fate
    FATE_FIELD_NUMBER: _ClassVar[int]
    fate: HeldFate.Fate
    def __init__(self, fate: _Optional[_Union[HeldFate.Fate, str]] = ...) -> None: ...

class Train(_message.Message):
    __slots__ = ("round", "attempt", "base", "task_digest", "run_seed", "rounds", "values", "threads", "clients", "artefacts", "upload_within_seconds", "quality", "expected_clients", "sample_digest")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    TASK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RUN_SEED_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_WITHIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    base: _tensor_pb2.ModelVersion
    task_digest: str
    run_seed: int
    rounds: int
    values: _containers.ScalarMap[str, float]
    threads: int
    clients: _containers.RepeatedCompositeFieldContainer[ClientTask]
    artefacts: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Artefact]
    upload_within_seconds: float
    quality: bool
    expected_clients: int
    sample_digest: str
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ..., base: _Optional[_Union[_tensor_pb2.ModelVersion, _Mapping]] = ..., task_digest: _Optional[str] = ..., run_seed: _Optional[int] = ..., rounds: _Optional[int] = ..., values: _Optional[_Mapping[str, float]] = ..., threads: _Optional[int] = ..., clients: _Optional[_Iterable[_Union[ClientTask, _Mapping]]] = ..., artefacts: _Optional[_Iterable[_Union[_tensor_pb2.Artefact, _Mapping]]] = ..., upload_within_seconds: _Optional[float] = ..., quality: bool = ..., expected_clients: _Optional[int] = ..., sample_digest: _Optional[str] = ...) -> None: ...

class ClientTask(_message.Message):
    __slots__ = ("client", "scaling")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    client: str
    scaling: ScalingVector
    def __init__(self, client: _Optional[str] = ..., scaling: _Optional[_Union[ScalingVector, _Mapping]] = ...) -> None: ...

class ScalingVector(_message.Message):
    __slots__ = ("dimension", "indices", "alpha")
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    dimension: int
    indices: _containers.RepeatedScalarFieldContainer[int]
    alpha: float
    def __init__(self, dimension: _Optional[int] = ..., indices: _Optional[_Iterable[int]] = ..., alpha: _Optional[float] = ...) -> None: ...

class Flush(_message.Message):
    __slots__ = ("round", "attempt")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Evaluate(_message.Message):
    __slots__ = ("version", "run_seed", "clients", "artefacts", "threads")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_SEED_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    version: _tensor_pb2.ModelVersion
    run_seed: int
    clients: _containers.RepeatedCompositeFieldContainer[ClientTask]
    artefacts: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Artefact]
    threads: int
    def __init__(self, version: _Optional[_Union[_tensor_pb2.ModelVersion, _Mapping]] = ..., run_seed: _Optional[int] = ..., clients: _Optional[_Iterable[_Union[ClientTask, _Mapping]]] = ..., artefacts: _Optional[_Iterable[_Union[_tensor_pb2.Artefact, _Mapping]]] = ..., threads: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("round", "attempt", "reason")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    reason: str
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reason", "reconnect_after_seconds")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    reconnect_after_seconds: float
    def __init__(self, reason: _Optional[str] = ..., reconnect_after_seconds: _Optional[float] = ...) -> None: ...

class Committed(_message.Message):
    __slots__ = ("round", "version", "included")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INCLUDED_FIELD_NUMBER: _ClassVar[int]
    round: int
    version: _tensor_pb2.ModelVersion
    included: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, round: _Optional[int] = ..., version: _Optional[_Union[_tensor_pb2.ModelVersion, _Mapping]] = ..., included: _Optional[_Iterable[str]] = ...) -> None: ...

class RunChanged(_message.Message):
    __slots__ = ("reason", "finished")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    reason: str
    finished: bool
    def __init__(self, reason: _Optional[str] = ..., finished: bool = ...) -> None: ...

class FetchBlobRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class BlobPart(_message.Message):
    __slots__ = ("chunk_digests", "size", "offset", "data")
    CHUNK_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    chunk_digests: bytes
    size: int
    offset: int
    data: bytes
    def __init__(self, chunk_digests: _Optional[bytes] = ..., size: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadPart(_message.Message):
    __slots__ = ("envelope", "chunk")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    chunk: Chunk
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("run_id", "round", "attempt", "base_digest", "spec_digest", "task_digest", "kind", "clients", "body_size", "chunk_digests", "secure_round", "sharers_digest")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Envelope.Kind]
        KIND_UPDATE: _ClassVar[Envelope.Kind]
        KIND_FOLD: _ClassVar[Envelope.Kind]
        KIND_MASKED: _ClassVar[Envelope.Kind]
    KIND_UNSPECIFIED: Envelope.Kind
    KIND_UPDATE: Envelope.Kind
    KIND_FOLD: Envelope.Kind
    KIND_MASKED: Envelope.Kind
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SPEC_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TASK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    BODY_SIZE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SECURE_ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARERS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    round: int
    attempt: int
    base_digest: str
    spec_digest: str
    task_digest: str
    kind: Envelope.Kind
    clients: _containers.RepeatedCompositeFieldContainer[WeightedClient]
    body_size: int
    chunk_digests: bytes
    secure_round: bytes
    sharers_digest: bytes
    def __init__(self, run_id: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., base_digest: _Optional[str] = ..., spec_digest: _Optional[str] = ..., task_digest: _Optional[str] = ..., kind: _Optional[_Union[Envelope.Kind, str]] = ..., clients: _Optional[_Iterable[_Union[WeightedClient, _Mapping]]] = ..., body_size: _Optional[int] = ..., chunk_digests: _Optional[bytes] = ..., secure_round: _Optional[bytes] = ..., sharers_digest: _Optional[bytes] = ...) -> None: ...

class WeightedClient(_message.Message):
    __slots__ = ("client", "weight", "training_seconds")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    client: str
    weight: int
    training_seconds: float
    def __init__(self, client: _Optional[str] = ..., weight: _Optional[int] = ..., training_seconds: _Optional[float] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadReply(_message.Message):
    __slots__ = ("proceed", "hold", "go", "verdict")
    PROCEED_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    GO_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    proceed: Continue
    hold: Hold
    go: Go
    verdict: Verdict
    def __init__(self, proceed: _Optional[_Union[Continue, _Mapping]] = ..., hold: _Optional[_Union[Hold, _Mapping]] = ..., go: _Optional[_Union[Go, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class Continue(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Go(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("fate", "reason", "detail")
    class Fate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FATE_UNSPECIFIED: _ClassVar[Verdict.Fate]
        FATE_ACCEPTED: _ClassVar[Verdict.Fate]
        FATE_REJECTED: _ClassVar[Verdict.Fate]
        FATE_DISCARDED: _ClassVar[Verdict.Fate]
    FATE_UNSPECIFIED: Verdict.Fate
    FATE_ACCEPTED: Verdict.Fate
    FATE_REJECTED: Verdict.Fate
    FATE_DISCARDED: Verdict.Fate
    FATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    fate: Verdict.Fate
    reason: str
    detail: str
    def __init__(self, fate: _Optional[_Union[Verdict.Fate, str]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...
