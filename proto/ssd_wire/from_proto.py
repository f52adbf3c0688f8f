"""From protobuf to records, and the one place where a message of the other side is checked for what it must have.

Every function raises `Malformed` for a message that lacks what its receiver relies on. What depends on the receiver's
state (whether a client is hosted, a round is open, a level is acceptable) is not checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError, Message

from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.scaling import ScalingVector
from ssd.secagg.protocol.messages import MAX_MESSAGE_BYTES
from ssd.updates.codec import Encoding
from ssd.updates.declaration import MAX_BYTES
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from ssd_wire import messages as m
from ssd_wire import to_proto
from ssd_wire import uploads as u
from ssd_wire.errors import Malformed
from ssd_wire.uploads import DIGEST_BYTES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound="DataclassInstance")

ROUND_ID_BYTES = 16
MAX_SECURE_INLINE_BYTES = 256 << 10
"""Of a message of secure aggregation within a control message."""
MOST_SECONDS = 1e7
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DEVICES = frozenset({"cpu", "cuda"})
_LEVELS = frozenset({"off", "passive", "active"})
_ENCODINGS = frozenset(encoding.value for encoding in Encoding)
_HELD_FATES = {wire: fate for fate, wire in to_proto.HELD_FATES.items()}
_UPLOAD_KINDS = {wire: kind for kind, wire in to_proto.UPLOAD_KINDS.items()}
_UPLOAD_FATES = {wire: fate for fate, wire in to_proto.UPLOAD_FATES.items()}


def decode(kind: type[M], raw: bytes) -> M:
    """A protobuf message from its bytes."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise Malformed("a message that cannot be decoded") from error


def _alike(message: Message, kind: type[R]) -> R:
    """The record of a message whose fields are the record's, name by name; neither has lists among them."""
    return kind(**{field.name: getattr(message, field.name) for field in fields(kind)})


LEAST_HEARTBEAT_SECONDS, MOST_HEARTBEAT_SECONDS = 0.05, 3600.0
"""What a worker lets a coordinator ask for: it waits so long between two signs of life."""
MOST = 1 << 62
"""Numbers of versions, rounds and attempts are below it."""
MOST_THREADS = 1024
"""What a worker lets a coordinator ask for."""


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Malformed(otherwise)


# ------------------------------------------------------------------------------------------------------ words


def _digest(text: str) -> str:
    # Digests become file names: nothing but 64 hex digits may pass.
    _require(_DIGEST.fullmatch(text) is not None, "a digest that is not 64 lower-case hex digits")
    return text


def _countable(*numbers: int) -> None:
    """Numbers of versions, rounds and attempts are kept in a database, whose integers end at 2**63 - 1."""
    _require(all(number < MOST for number in numbers), "a number of 2**62 or more")


def blob_ref(message: tensor.BlobRef) -> m.BlobRef:
    """A blob's name."""
    return m.BlobRef(digest=_digest(message.digest), size=message.size)


def model_version(message: tensor.ModelVersion) -> m.ModelVersion:
    """A version and how to get it."""
    _countable(message.number)
    first = message.number - len(message.deltas) + 1
    numbers = [delta.number for delta in message.deltas]
    _require(numbers == list(range(first, message.number + 1)), "a version whose deltas have gaps")
    return m.ModelVersion(
        number=message.number,
        model_digest=_digest(message.model_digest),
        full=blob_ref(message.full),
        deltas=tuple(
            m.Delta(number=delta.number, blob=blob_ref(delta.blob), model_digest=_digest(delta.model_digest))
            for delta in message.deltas
        ),
    )


def artefact(message: tensor.Artefact) -> m.Artefact:
    """A shared array."""
    shape = tuple(message.shape)
    _require(
        4 * math.prod(shape) == message.blob.size,
        f"an artefact {message.name!r} whose shape and size differ",
    )
    return m.Artefact(name=message.name, blob=blob_ref(message.blob), shape=shape)


def task_client(message: pb.ClientTask) -> m.TaskClient:
    """One client of a task."""
    if not message.HasField("scaling"):
        return m.TaskClient(client=message.client)
    scaling = message.scaling
    try:
        vector = ScalingVector(
            dimension=scaling.dimension, indices=tuple(scaling.indices), alpha=scaling.alpha
        )
    except ValueError as error:
        raise Malformed(f"a wrong scaling vector for client {message.client}: {error}") from error
    return m.TaskClient(client=message.client, scaling=vector)


def hosted_clients(hosted: Iterable[pb.HostedClient]) -> dict[str, int]:
    """Client -> the worker's record of its last committed round."""
    clients: dict[str, int] = {}
    for each in hosted:
        if each.client in clients:
            raise Malformed("a client is named twice", reason="bad_name")
        clients[each.client] = each.last_committed_round
    return clients


# --------------------------------------------------------------------------------------------------------- up


def hello(message: pb.Hello) -> m.Hello:
    """The first message up, when all its parts are in one. A strange device is called `other`: only people read it."""
    can = _alike(message.capabilities, m.Capabilities)
    return m.Hello(
        worker=message.worker,
        instance=message.instance,
        clients=hosted_clients(message.clients),
        run_id=message.run_id,
        versions_held=tuple(message.versions_held),
        held_updates=tuple(_alike(each, m.UpdateKey) for each in message.held_updates),
        newest=(message.newest_version, message.newest_digest),
        capabilities=replace(can, device=can.device if can.device in _DEVICES else "other"),
        protocol=(message.protocol_min, message.protocol_max),
        build=message.build,
    )


def up(message: pb.WorkerMessage) -> m.Up:
    """Any message up but the hello."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise Malformed("an empty message")
    if kind == "hello":
        raise Malformed("a stream has one hello", reason="wrong_order")
    return _UP[kind](getattr(message, kind))


def evaluation_done(message: pb.EvaluationDone) -> m.EvaluationDone:
    """What was measured."""
    return m.EvaluationDone(
        version=message.version,
        values=dict(message.values),
        error=message.error,
        clients=tuple(message.clients) if message.on_clients else None,
    )


def secure_answer(message: pb.SecureAggregation) -> m.SecureMessage:
    """A worker's message of secure aggregation. Whether its round id means anything is for the round to say."""
    _require(not message.HasField("blob"), "blobs go down only")
    return m.SecureMessage(round_id=message.round_id, content=message.message)


_UP: dict[str, Callable[[Any], m.Up]] = {
    "heartbeat": lambda said: _alike(said, m.Heartbeat),
    "progress": lambda said: _alike(said, m.Progress),
    "task_failed": lambda said: _alike(said, m.TaskFailed),
    "version_held": lambda said: _alike(said, m.VersionHeld),
    "evaluation_done": evaluation_done,
    "clients_changed": lambda said: m.ClientsChanged(clients=hosted_clients(said.clients)),
    "secure_aggregation": secure_answer,
}


# ------------------------------------------------------------------------------------------------------- down


def down(message: pb.CoordinatorMessage) -> m.Down | None:
    """Any message down; None for one of a later protocol."""
    kind = message.WhichOneof("kind")
    return None if kind is None else _DOWN[kind](getattr(message, kind))


def welcome(message: pb.Welcome) -> m.Welcome:
    """The answer to the hello."""
    _require(message.protocol == 1, f"protocol {message.protocol}, which was never offered")
    _require(bool(message.session) and bool(message.run_id), "a welcome without session or run")
    _require(
        LEAST_HEARTBEAT_SECONDS <= message.heartbeat_seconds <= MOST_HEARTBEAT_SECONDS,
        f"heartbeat_seconds that are not {LEAST_HEARTBEAT_SECONDS:g} to {MOST_HEARTBEAT_SECONDS:g}",
    )
    _require(message.declaration.size <= MAX_BYTES, f"a declaration of more than {MAX_BYTES} bytes")
    _require(
        message.max_cohort > 0 and message.max_client_weight > 0,
        "a welcome without max_cohort or max_client_weight",
    )
    _require(message.HasField("version"), "a welcome without version")
    _require(
        {message.update_encoding, message.delta_encoding} <= _ENCODINGS,
        "an encoding this worker does not know",
    )
    _require(all(held.fate in _HELD_FATES for held in message.held_fates), "an unknown fate of a held update")
    level = message.secure_aggregation_level or "off"
    _require(level in _LEVELS, "a level of secure aggregation this worker does not know")
    if level != "off":
        _check_secure(message)
    terms = privacy(message.privacy) if message.HasField("privacy") else None
    if terms is not None:
        _check_private(message, terms, level)
    return m.Welcome(
        protocol=message.protocol,
        session=message.session,
        run_id=message.run_id,
        declaration=blob_ref(message.declaration),
        declaration_digest=_digest(message.declaration_digest),
        held_fates=tuple(_HELD_FATES[held.fate] for held in message.held_fates),
        reinitialise={hosted.client: hosted.last_committed_round for hosted in message.reinitialise},
        data_endpoints=tuple(message.data_endpoints),
        heartbeat_seconds=message.heartbeat_seconds,
        update_encoding=message.update_encoding,
        delta_encoding=message.delta_encoding,
        max_cohort=message.max_cohort,
        max_client_weight=message.max_client_weight,
        max_upload_bytes=message.max_upload_bytes,
        version=model_version(message.version),
        build=message.build,
        individual_updates=message.individual_updates,
        level=level,
        masking=None if level == "off" else masking(message.masking),
        privacy=terms,
    )


def _check_secure(message: pb.Welcome) -> None:
    _require(message.HasField("masking"), "a level of secure aggregation, but not how to quantise")
    _require(message.update_encoding == Encoding.FLOAT32.value, "secure aggregation of rounded updates")
    _require(not message.individual_updates, "secure aggregation for a method that looks at single updates")


def _check_private(message: pb.Welcome, terms: PrivacySettings, level: str) -> None:
    _require(
        (terms.place is NoisePlace.DISTRIBUTED) == (level != "off"),
        "noise of workers without secure aggregation, or the other way round",
    )
    _require(message.update_encoding == Encoding.FLOAT32.value, "clipped updates that are rounded afterwards")
    _require(message.max_client_weight == 1, "differential privacy for clients that count more than once")
    _require(not message.individual_updates, "differential privacy for a method that looks at single updates")


def privacy(message: pb.Privacy) -> PrivacySettings:
    """The terms of differential privacy."""
    try:
        return PrivacySettings(
            place=NoisePlace(message.place),
            clip_norm=message.clip_norm,
            noise_multiplier=message.noise_multiplier,
            delta=message.delta,
            min_honest=message.min_honest,
        )
    except ValueError as error:
        raise Malformed(f"no terms of differential privacy: {error}") from error


def masking(message: pb.Masking) -> m.Masking:
    """How updates are quantised before they are masked."""
    _require(
        message.ring_bits in {16, 24, 32} and 0 < message.clip < math.inf and message.max_client_weight > 0,
        "a masking without a ring of 16, 24 or 32 bits, a clip or a weight",
    )
    return _alike(message, m.Masking)


def train(message: pb.Train) -> m.Train:
    """A round's task."""
    _countable(message.round, message.attempt, message.rounds)
    _require(
        message.round >= 1 and message.attempt >= 1 and message.threads >= 1,
        "a task without round, attempt or threads",
    )
    _require(message.threads <= MOST_THREADS, f"a task with more than {MOST_THREADS} threads")
    _require(message.HasField("base"), "a task without base version")
    names = [task.client for task in message.clients]
    _require(len(names) > 0 and len(set(names)) == len(names), "a task without clients, or with one twice")
    _require(
        all(math.isfinite(value) for value in message.values.values()),
        "a task with a value that is not finite",
    )
    arrays = [each.name for each in message.artefacts]
    _require(len(set(arrays)) == len(arrays), "a task with an artefact twice")
    _require(message.expected_clients >= 1, "a task for no expected clients")
    return m.Train(
        round=message.round,
        attempt=message.attempt,
        base=model_version(message.base),
        task_digest=_digest(message.task_digest),
        run_seed=message.run_seed,
        rounds=message.rounds,
        values=dict(message.values),
        threads=message.threads,
        clients=tuple(task_client(each) for each in message.clients),
        artefacts=tuple(artefact(each) for each in message.artefacts),
        upload_within_seconds=message.upload_within_seconds,
        quality=message.quality,
        expected_clients=message.expected_clients,
        sample_digest=message.sample_digest,
    )


def evaluate(message: pb.Evaluate) -> m.Evaluate:
    """What to measure."""
    names = [task.client for task in message.clients]
    _require(len(set(names)) == len(names), "an evaluation with a client twice")
    _require(message.threads >= 1 or not names, "an evaluation of clients without threads")
    _require(message.threads <= MOST_THREADS, f"an evaluation with more than {MOST_THREADS} threads")
    return m.Evaluate(
        version=model_version(message.version),
        run_seed=message.run_seed,
        clients=tuple(task_client(each) for each in message.clients),
        artefacts=tuple(artefact(each) for each in message.artefacts),
        threads=max(1, message.threads),
    )


def secure_message(message: pb.SecureAggregation) -> m.SecureMessage:
    """The coordinator's message of secure aggregation, or where it can be fetched."""
    _require(len(message.round_id) == ROUND_ID_BYTES, "a round id that is not 16 bytes long")
    _require(
        bool(message.message) != message.HasField("blob"),
        "secure aggregation without a message, or with two of them",
    )
    too_long = "a message of secure aggregation that is too long"
    if message.HasField("blob"):
        _require(0 < message.blob.size <= MAX_MESSAGE_BYTES, too_long)
        return m.SecureMessage(round_id=message.round_id, blob=blob_ref(message.blob))
    _require(len(message.message) <= MAX_SECURE_INLINE_BYTES, too_long)
    return m.SecureMessage(round_id=message.round_id, content=message.message)


_DOWN: dict[str, Callable[[Any], m.Down]] = {
    "welcome": welcome,
    "train": train,
    "flush": lambda said: _alike(said, m.Flush),
    "evaluate": evaluate,
    "cancel": lambda said: _alike(said, m.Cancel),
    "drain": lambda said: _alike(said, m.Drain),
    "committed": lambda said: m.Committed(
        round=said.round, version=model_version(said.version), included=tuple(said.included)
    ),
    "run_changed": lambda said: _alike(said, m.RunChanged),
    "secure_aggregation": secure_message,
}


# ---------------------------------------------------------------------------------------------------- uploads


def envelope(message: pb.Envelope) -> u.Envelope:
    """What an upload says of itself. Durations, which only metrics read, are brought into range."""
    kind = _UPLOAD_KINDS.get(message.kind)
    if kind is None:
        raise Malformed("the envelope names no kind of upload")
    lengths = (len(message.secure_round), len(message.sharers_digest))
    masked = kind is u.UploadKind.MASKED
    _require(
        lengths == ((ROUND_ID_BYTES, DIGEST_BYTES) if masked else (0, 0)),
        f"a masked upload names its round id ({ROUND_ID_BYTES} bytes) and its sharers ({DIGEST_BYTES}), others none",
    )
    _require(
        not (masked and any(each.weight for each in message.clients)),
        "weights of a masked upload are inside it, not in clear",
    )
    digests = message.chunk_digests
    _require(len(digests) % DIGEST_BYTES == 0, "chunk digests are 32 bytes each")
    return u.Envelope(
        run_id=message.run_id,
        round=message.round,
        attempt=message.attempt,
        base_digest=message.base_digest,
        spec_digest=message.spec_digest,
        task_digest=message.task_digest,
        kind=kind,
        clients=tuple(
            u.WeightedClient(
                client=each.client,
                weight=each.weight,
                training_seconds=_seconds(each.training_seconds),
            )
            for each in message.clients
        ),
        body_size=message.body_size,
        chunk_digests=u.split_digests(digests),
        secure_round=message.secure_round,
        sharers_digest=message.sharers_digest,
    )


def _seconds(claimed: float) -> float:
    return min(max(claimed, 0.0), MOST_SECONDS) if math.isfinite(claimed) else 0.0


def upload_reply(message: pb.UploadReply) -> u.UploadReply | None:
    """Any message down of an upload; None for one of a later protocol."""
    match message.WhichOneof("kind"):
        case "proceed":
            return u.Continue(offset=message.proceed.offset)
        case "hold":
            return u.Hold(reason=message.hold.reason)
        case "go":
            return u.Go()
        case "verdict":
            said = message.verdict
            _require(said.fate in _UPLOAD_FATES, "an unknown fate of an upload")
            return u.Verdict(fate=_UPLOAD_FATES[said.fate], reason=said.reason, detail=said.detail)
        case _:
            return None
