from ssd_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ("details",)
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    details: bool
    def __init__(self, details: bool = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("run_id", "method", "mode", "phase", "waiting_for", "version", "round", "attempt", "rounds", "cohort", "workers", "registered_clients", "connected_clients", "evaluation", "evaluated_version", "statistics", "build", "uptime_seconds", "privacy", "details")
    class CohortEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class EvaluationEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    method: str
    mode: str
    phase: str
    waiting_for: str
    version: _tensor_pb2.ModelVersion
    round: int
    attempt: int
    rounds: int
    cohort: _containers.ScalarMap[str, int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    registered_clients: int
    connected_clients: int
    evaluation: _containers.ScalarMap[str, float]
    evaluated_version: int
    statistics: _containers.ScalarMap[str, float]
    build: str
    uptime_seconds: float
    privacy: str
    details: StatusDetails
    def __init__(self, run_id: _Optional[str] = ..., method: _Optional[str] = ..., mode: _Optional[str] = ..., phase: _Optional[str] = ..., waiting_for: _Optional[str] = ..., version: _Optional[_Union[_tensor_pb2.ModelVersion, _Mapping]] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., rounds: _Optional[int] = ..., cohort: _Optional[_Mapping[str, int]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., registered_clients: _Optional[int] = ..., connected_clients: _Optional[int] = ..., evaluation: _Optional[_Mapping[str, float]] = ..., evaluated_version: _Optional[int] = ..., statistics: _Optional[_Mapping[str, float]] = ..., build: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., privacy: _Optional[str] = ..., details: _Optional[_Union[StatusDetails, _Mapping]] = ...) -> None: ...

class StatusDetails(_message.Message):
    __slots__ = ("progress", "goal", "open_seconds", "left_seconds", "departed", "departed_workers", "dropped", "secure_aggregation")
    class ProgressEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    GOAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEFT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEPARTED_FIELD_NUMBER: _ClassVar[int]
    DEPARTED_WORKERS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SECURE_AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    progress: _containers.ScalarMap[str, int]
    goal: int
    open_seconds: float
    left_seconds: float
    departed: _containers.RepeatedCompositeFieldContainer[DepartedWorker]
    departed_workers: int
    dropped: _containers.RepeatedCompositeFieldContainer[DroppedOut]
    secure_aggregation: SecureAggregationStatus
    def __init__(self, progress: _Optional[_Mapping[str, int]] = ..., goal: _Optional[int] = ..., open_seconds: _Optional[float] = ..., left_seconds: _Optional[float] = ..., departed: _Optional[_Iterable[_Union[DepartedWorker, _Mapping]]] = ..., departed_workers: _Optional[int] = ..., dropped: _Optional[_Iterable[_Union[DroppedOut, _Mapping]]] = ..., secure_aggregation: _Optional[_Union[SecureAggregationStatus, _Mapping]] = ...) -> None: ...

class DepartedWorker(_message.Message):
    __slots__ = ("worker", "last_seen_seconds", "reason")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker: str
    last_seen_seconds: float
    reason: str
    def __init__(self, worker: _Optional[str] = ..., last_seen_seconds: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class DroppedOut(_message.Message):
    __slots__ = ("client", "worker", "round", "attempt", "reason", "seconds_ago")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_AGO_FIELD_NUMBER: _ClassVar[int]
    client: str
    worker: str
    round: int
    attempt: int
    reason: str
    seconds_ago: float
    def __init__(self, client: _Optional[str] = ..., worker: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., reason: _Optional[str] = ..., seconds_ago: _Optional[float] = ...) -> None: ...

class SecureAggregationStatus(_message.Message):
    __slots__ = ("level", "phase", "participants", "uploaded", "survivors", "awaited", "awaited_workers")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    UPLOADED_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    AWAITED_FIELD_NUMBER: _ClassVar[int]
    AWAITED_WORKERS_FIELD_NUMBER: _ClassVar[int]
    level: str
    phase: str
    participants: int
    uploaded: int
    survivors: int
    awaited: _containers.RepeatedScalarFieldContainer[str]
    awaited_workers: int
    def __init__(self, level: _Optional[str] = ..., phase: _Optional[str] = ..., participants: _Optional[int] = ..., uploaded: _Optional[int] = ..., survivors: _Optional[int] = ..., awaited: _Optional[_Iterable[str]] = ..., awaited_workers: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "clients", "evaluates", "device", "last_seen_seconds")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    EVALUATES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    clients: int
    evaluates: bool
    device: str
    last_seen_seconds: float
    def __init__(self, worker: _Optional[str] = ..., clients: _Optional[int] = ..., evaluates: bool = ..., device: _Optional[str] = ..., last_seen_seconds: _Optional[float] = ...) -> None: ...

class RoundsRequest(_message.Message):
    __slots__ = ("limit", "counts_only")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_ONLY_FIELD_NUMBER: _ClassVar[int]
    limit: int
    counts_only: bool
    def __init__(self, limit: _Optional[int] = ..., counts_only: bool = ...) -> None: ...

class RoundsReply(_message.Message):
    __slots__ = ("rounds",)
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[RoundRecord]
    def __init__(self, rounds: _Optional[_Iterable[_Union[RoundRecord, _Mapping]]] = ...) -> None: ...

class RoundRecord(_message.Message):
    __slots__ = ("round", "attempt", "outcome", "reason", "cohort_size", "accepted", "seconds", "model_digest", "statistics", "bytes_up", "bytes_down", "accepted_clients", "closed_at")
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COHORT_SIZE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_AT_FIELD_NUMBER: _ClassVar[int]
    round: int
    attempt: int
    outcome: str
    reason: str
    cohort_size: int
    accepted: int
    seconds: float
    model_digest: str
    statistics: _containers.ScalarMap[str, float]
    bytes_up: int
    bytes_down: int
    accepted_clients: _containers.RepeatedScalarFieldContainer[str]
    closed_at: float
    def __init__(self, round: _Optional[int] = ..., attempt: _Optional[int] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., cohort_size: _Optional[int] = ..., accepted: _Optional[int] = ..., seconds: _Optional[float] = ..., model_digest: _Optional[str] = ..., statistics: _Optional[_Mapping[str, float]] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., accepted_clients: _Optional[_Iterable[str]] = ..., closed_at: _Optional[float] = ...) -> None: ...

class EvaluationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EvaluationsReply(_message.Message):
    __slots__ = ("evaluations",)
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[EvaluationRecord]
    def __init__(self, evaluations: _Optional[_Iterable[_Union[EvaluationRecord, _Mapping]]] = ...) -> None: ...

class EvaluationRecord(_message.Message):
    __slots__ = ("version", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    version: int
    values: _containers.ScalarMap[str, float]
    def __init__(self, version: _Optional[int] = ..., values: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ClientsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClientsReply(_message.Message):
    __slots__ = ("clients",)
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[ClientRecord]
    def __init__(self, clients: _Optional[_Iterable[_Union[ClientRecord, _Mapping]]] = ...) -> None: ...

class ClientRecord(_message.Message):
    __slots__ = ("client", "index", "worker", "last_committed_round", "revoked", "scaled_dimensions", "alpha", "rounds_included", "belongs_to")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LAST_COMMITTED_ROUND_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    SCALED_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_INCLUDED_FIELD_NUMBER: _ClassVar[int]
    BELONGS_TO_FIELD_NUMBER: _ClassVar[int]
    client: str
    index: int
    worker: str
    last_committed_round: int
    revoked: bool
    scaled_dimensions: _containers.RepeatedScalarFieldContainer[int]
    alpha: float
    rounds_included: int
    belongs_to: str
    def __init__(self, client: _Optional[str] = ..., index: _Optional[int] = ..., worker: _Optional[str] = ..., last_committed_round: _Optional[int] = ..., revoked: bool = ..., scaled_dimensions: _Optional[_Iterable[int]] = ..., alpha: _Optional[float] = ..., rounds_included: _Optional[int] = ..., belongs_to: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("client", "identity")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    client: str
    identity: Identity
    def __init__(self, client: _Optional[str] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ...) -> None: ...

class RevokeReply(_message.Message):
    __slots__ = ("connected",)
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    connected: bool
    def __init__(self, connected: bool = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("role", "name")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class MoveClientRequest(_message.Message):
    __slots__ = ("client", "worker")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    client: str
    worker: str
    def __init__(self, client: _Optional[str] = ..., worker: _Optional[str] = ...) -> None: ...

class MoveClientReply(_message.Message):
    __slots__ = ("before",)
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    before: str
    def __init__(self, before: _Optional[str] = ...) -> None: ...

class VersionRequest(_message.Message):
    __slots__ = ("number", "newest")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    number: int
    newest: bool
    def __init__(self, number: _Optional[int] = ..., newest: bool = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadPart(_message.Message):
    __slots__ = ("size", "offset", "data")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    size: int
    offset: int
    data: bytes
    def __init__(self, size: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class VersionReply(_message.Message):
    __slots__ = ("version", "declaration", "provenance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DECLARATION_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    version: _tensor_pb2.ModelVersion
    declaration: bytes
    provenance: Provenance
    def __init__(self, version: _Optional[_Union[_tensor_pb2.ModelVersion, _Mapping]] = ..., declaration: _Optional[bytes] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("parent_digest", "mode", "rounds", "registered_clients", "included_clients", "total_weight", "statistics", "evaluation", "secure_aggregation", "privacy", "build")
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class EvaluationEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PARENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    INCLUDED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    SECURE_AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    parent_digest: str
    mode: str
    rounds: int
    registered_clients: int
    included_clients: int
    total_weight: int
    statistics: _containers.ScalarMap[str, float]
    evaluation: _containers.ScalarMap[str, float]
    secure_aggregation: str
    privacy: str
    build: str
    def __init__(self, parent_digest: _Optional[str] = ..., mode: _Optional[str] = ..., rounds: _Optional[int] = ..., registered_clients: _Optional[int] = ..., included_clients: _Optional[int] = ..., total_weight: _Optional[int] = ..., statistics: _Optional[_Mapping[str, float]] = ..., evaluation: _Optional[_Mapping[str, float]] = ..., secure_aggregation: _Optional[str] = ..., privacy: _Optional[str] = ..., build: _Optional[str] = ...) -> None: ...
