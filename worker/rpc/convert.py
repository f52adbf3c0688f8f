"""Protobuf on one side, the worker's own types on the other: nothing of protobuf passes beyond this room.

What comes in is checked here: a message that lacks what the session relies on raises `CoordinatorFault`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.scaling import ScalingVector
from ssd.secagg.protocol.messages import MAX_MESSAGE_BYTES
from ssd.updates.codec import Encoding
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from worker.core import messages
from worker.errors import CoordinatorFault

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEVELS = frozenset({"off", "passive", "active"})
ROUND_ID_BYTES = 16
MAX_SECURE_INLINE_BYTES = 256 << 10
"""Of a message of secure aggregation within a control message."""
_ENCODINGS = frozenset(encoding.value for encoding in Encoding)
_FATES = {
    pb.HeldFate.FATE_KEEP: messages.Fate.KEEP,
    pb.HeldFate.FATE_COMMITTED: messages.Fate.COMMITTED,
    pb.HeldFate.FATE_DISCARDED: messages.Fate.DISCARDED,
}
_VERDICTS = {
    pb.Verdict.FATE_ACCEPTED: messages.UploadFate.ACCEPTED,
    pb.Verdict.FATE_REJECTED: messages.UploadFate.REJECTED,
    pb.Verdict.FATE_DISCARDED: messages.UploadFate.DISCARDED,
}


HELLO_ENTRIES = 2048
"""Clients and held updates one message of a hello has at most, so that the longest names stay under a mebibyte."""


def hello(
    message: messages.Hello,
    *,
    worker: str,
    instance: str,
    build: str,
    evaluates: bool,
    labels: bool,
    client_tests: bool,
    device: str,
    memory: int,
) -> list[bytes]:
    """The first message up, in as many parts as it takes."""
    clients = sorted(message.clients.items())
    first = pb.Hello(
        protocol_min=1,
        protocol_max=1,
        build=build,
        worker=worker,
        instance=instance,
        run_id=message.run_id,
        versions_held=message.versions_held,
        newest_version=message.newest[0],
        newest_digest=message.newest[1],
        capabilities=pb.Capabilities(
            evaluates=evaluates,
            device=device,
            device_memory=memory,
            labels=labels,
            client_tests=client_tests,
        ),
    )
    count = max(1, -(-max(len(clients), len(message.held)) // HELLO_ENTRIES))
    parts = []
    for number in range(count):
        here = slice(number * HELLO_ENTRIES, (number + 1) * HELLO_ENTRIES)
        part = pb.Hello() if number else first
        part.clients.extend(
            pb.HostedClient(client=client, last_committed_round=record) for client, record in clients[here]
        )
        part.held_updates.extend(
            pb.HeldUpdate(
                client=key.client, round=key.round, base_digest=key.base_digest, task_digest=key.task_digest
            )
            for key in message.held[here]
        )
        part.more = number + 1 < count
        parts.append(pb.WorkerMessage(hello=part).SerializeToString())
    return parts


def up(message: messages.Up) -> bytes:
    """Any later message up."""
    match message:
        case messages.Heartbeat():
            out = pb.WorkerMessage(
                heartbeat=pb.Heartbeat(
                    uptime_seconds=message.uptime_seconds,
                    device_memory_used=message.device_memory_used,
                    busy_share=message.busy_share,
                )
            )
        case messages.Progress():
            out = pb.WorkerMessage(
                progress=pb.Progress(
                    round=message.round,
                    attempt=message.attempt,
                    client=message.client,
                    step=message.step,
                    steps=message.steps,
                    seconds=message.seconds,
                )
            )
        case messages.TaskFailed():
            out = pb.WorkerMessage(
                task_failed=pb.TaskFailed(
                    round=message.round,
                    attempt=message.attempt,
                    client=message.client,
                    reason=message.reason,
                    detail=message.detail,
                )
            )
        case messages.VersionHeld():
            held = pb.VersionHeld(number=message.number, model_digest=message.model_digest)
            out = pb.WorkerMessage(version_held=held)
        case messages.EvaluationDone():
            done = pb.EvaluationDone(
                version=message.version,
                values=dict(message.values),
                error=message.error,
                clients=message.clients or (),
                on_clients=message.clients is not None,
            )
            out = pb.WorkerMessage(evaluation_done=done)
        case messages.SecureMessage():
            said = pb.SecureAggregation(round_id=message.round_id, message=message.content)
            out = pb.WorkerMessage(secure_aggregation=said)
    return out.SerializeToString()


def down(raw: bytes) -> messages.Down | None:
    """A message down; None for one this worker is too old to know.

    Raises:
        CoordinatorFault: it is no message, or lacks what is needed.
    """
    try:
        message = pb.CoordinatorMessage.FromString(raw)
    except DecodeError as error:
        raise CoordinatorFault("a control message cannot be decoded") from error
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    return _DOWN[kind](getattr(message, kind))


def _welcome(m: pb.Welcome) -> messages.Welcome:
    _require(m.protocol == 1, f"protocol {m.protocol} was never offered")
    _require(bool(m.session) and bool(m.run_id), "a welcome without session or run")
    _require(0 < m.heartbeat_seconds < math.inf, "a welcome without heartbeat_seconds")
    _require(
        m.max_cohort > 0 and m.max_client_weight > 0, "a welcome without max_cohort or max_client_weight"
    )
    _require(m.HasField("version"), "a welcome without version")
    _require({m.update_encoding, m.delta_encoding} <= _ENCODINGS, "an encoding this worker does not know")
    _require(all(fate.fate in _FATES for fate in m.held_fates), "an unknown fate of a held update")
    level = m.secure_aggregation_level or "off"
    _require(level in _LEVELS, "a level of secure aggregation this worker does not know")
    if level != "off":
        _require(m.HasField("masking"), "a level of secure aggregation, but not how to quantise")
        _require(m.update_encoding == Encoding.FLOAT32.value, "secure aggregation of rounded updates")
        _require(not m.individual_updates, "secure aggregation for a method that looks at single updates")
    privacy = _privacy(m.privacy) if m.HasField("privacy") else None
    if privacy is not None:
        masked = privacy.place is NoisePlace.DISTRIBUTED
        _require(
            masked == (level != "off"), "noise of workers without secure aggregation, or the other way round"
        )
        _require(m.update_encoding == Encoding.FLOAT32.value, "clipped updates that are rounded afterwards")
        _require(m.max_client_weight == 1, "differential privacy for clients that count more than once")
        _require(not m.individual_updates, "differential privacy for a method that looks at single updates")
    return messages.Welcome(
        protocol=m.protocol,
        session=m.session,
        run_id=m.run_id,
        declaration=_blob(m.declaration),
        declaration_digest=_digest(m.declaration_digest),
        held_fates=tuple(_FATES[fate.fate] for fate in m.held_fates),
        reinitialise={hosted.client: hosted.last_committed_round for hosted in m.reinitialise},
        data_endpoints=tuple(m.data_endpoints),
        heartbeat_seconds=m.heartbeat_seconds,
        update_encoding=m.update_encoding,
        delta_encoding=m.delta_encoding,
        max_cohort=m.max_cohort,
        max_client_weight=m.max_client_weight,
        max_upload_bytes=m.max_upload_bytes,
        version=_version(m.version),
        build=m.build,
        individual_updates=m.individual_updates,
        level=level,
        masking=None if level == "off" else _masking(m.masking),
        privacy=privacy,
    )


def _privacy(m: pb.Privacy) -> PrivacySettings:
    try:
        return PrivacySettings(
            place=NoisePlace(m.place),
            clip_norm=m.clip_norm,
            noise_multiplier=m.noise_multiplier,
            delta=m.delta,
            min_honest=m.min_honest,
        )
    except ValueError as error:
        raise CoordinatorFault(f"the coordinator sent no terms of differential privacy: {error}") from error


def _masking(m: pb.Masking) -> messages.Masking:
    _require(
        m.ring_bits in {16, 24, 32} and 0 < m.clip < math.inf and m.max_client_weight > 0,
        "a masking without a ring of 16, 24 or 32 bits, a clip or a weight",
    )
    return messages.Masking(ring_bits=m.ring_bits, clip=m.clip, max_client_weight=m.max_client_weight)


def _secure(m: pb.SecureAggregation) -> messages.SecureMessage:
    _require(len(m.round_id) == ROUND_ID_BYTES, "a round id that is not 16 bytes long")
    _require(
        bool(m.message) != m.HasField("blob"), "secure aggregation without a message, or with two of them"
    )
    if m.message:
        _require(
            len(m.message) <= MAX_SECURE_INLINE_BYTES, "a message of secure aggregation that is too long"
        )
        return messages.SecureMessage(round_id=m.round_id, content=m.message)
    _require(0 < m.blob.size <= MAX_MESSAGE_BYTES, "a message of secure aggregation that is too long")
    return messages.SecureMessage(round_id=m.round_id, blob=_blob(m.blob))


def _train(m: pb.Train) -> messages.Train:
    _require(m.round >= 1 and m.attempt >= 1 and m.threads >= 1, "a task without round, attempt or threads")
    _require(m.HasField("base"), "a task without base version")
    names = [task.client for task in m.clients]
    _require(len(names) > 0 and len(set(names)) == len(names), "a task without clients, or with one twice")
    _require(
        all(math.isfinite(value) for value in m.values.values()), "a task with a value that is not finite"
    )
    arrays = [artefact.name for artefact in m.artefacts]
    _require(len(set(arrays)) == len(arrays), "a task with an artefact twice")
    _require(m.expected_clients >= 1, "a task for no expected clients")
    return messages.Train(
        round=m.round,
        attempt=m.attempt,
        base=_version(m.base),
        task_digest=_digest(m.task_digest),
        run_seed=m.run_seed,
        rounds=m.rounds,
        values=dict(m.values),
        threads=m.threads,
        clients=tuple(_task_client(task) for task in m.clients),
        artefacts=tuple(_artefact(artefact) for artefact in m.artefacts),
        upload_within_seconds=m.upload_within_seconds,
        quality=m.quality,
        expected_clients=m.expected_clients,
        sample_digest=m.sample_digest,
    )


def _task_client(m: pb.ClientTask) -> messages.TaskClient:
    if not m.HasField("scaling"):
        return messages.TaskClient(client=m.client)
    scaling = m.scaling
    try:
        vector = ScalingVector(
            dimension=scaling.dimension, indices=tuple(scaling.indices), alpha=scaling.alpha
        )
    except ValueError as error:
        raise CoordinatorFault(f"client {m.client}: {error}") from error
    return messages.TaskClient(client=m.client, scaling=vector)


def _artefact(m: tensor.Artefact) -> messages.Artefact:
    shape = tuple(m.shape)
    _require(4 * math.prod(shape) == m.blob.size, f"artefact {m.name!r}: shape and size differ")
    return messages.Artefact(name=m.name, blob=_blob(m.blob), shape=shape)


def _version(m: tensor.ModelVersion) -> messages.Version:
    first = m.number - len(m.deltas) + 1
    numbers = [delta.number for delta in m.deltas]
    _require(numbers == list(range(first, m.number + 1)), "the deltas of a version have gaps")
    return messages.Version(
        number=m.number,
        model_digest=_digest(m.model_digest),
        full=_blob(m.full),
        deltas=tuple(
            messages.DeltaStep(
                number=delta.number, blob=_blob(delta.blob), model_digest=_digest(delta.model_digest)
            )
            for delta in m.deltas
        ),
    )


def _evaluate(m: pb.Evaluate) -> messages.Evaluate:
    names = [task.client for task in m.clients]
    _require(len(set(names)) == len(names), "an evaluation with a client twice")
    _require(m.threads >= 1 or not names, "an evaluation of clients without threads")
    return messages.Evaluate(
        version=_version(m.version),
        run_seed=m.run_seed,
        clients=tuple(_task_client(task) for task in m.clients),
        artefacts=tuple(_artefact(artefact) for artefact in m.artefacts),
        threads=max(1, m.threads),
    )


def _committed(m: pb.Committed) -> messages.Committed:
    return messages.Committed(round=m.round, version=_version(m.version), included=tuple(m.included))


_DOWN: dict[str, Callable[[Any], messages.Down]] = {
    "welcome": _welcome,
    "train": _train,
    "committed": _committed,
    "flush": lambda m: messages.Flush(round=m.round, attempt=m.attempt),
    "evaluate": _evaluate,
    "cancel": lambda m: messages.Cancel(round=m.round, attempt=m.attempt, reason=m.reason),
    "drain": lambda m: messages.Drain(reason=m.reason, reconnect_after_seconds=m.reconnect_after_seconds),
    "secure_aggregation": _secure,
    "run_changed": lambda m: messages.RunChanged(reason=m.reason, finished=m.finished),
}


def fetch_request(digest: str, offset: int) -> bytes:
    """The request of `FetchBlob`."""
    return pb.FetchBlobRequest(digest=digest, offset=offset).SerializeToString()


def envelope(message: messages.Envelope) -> bytes:
    """The first message of an upload; equal envelopes have equal bytes."""
    kind = pb.Envelope.KIND_FOLD if message.fold else pb.Envelope.KIND_UPDATE
    if message.secure_round:
        kind = pb.Envelope.KIND_MASKED
    clients = [
        pb.WeightedClient(client=client, weight=weight, training_seconds=seconds)
        for client, weight, seconds in message.clients
    ]
    return pb.UploadPart(
        envelope=pb.Envelope(
            run_id=message.run_id,
            round=message.round,
            attempt=message.attempt,
            base_digest=message.base_digest,
            spec_digest=message.spec_digest,
            task_digest=message.task_digest,
            kind=kind,
            clients=clients,
            body_size=message.body_size,
            chunk_digests=message.chunk_digests,
            secure_round=message.secure_round,
            sharers_digest=message.sharers_digest,
        )
    ).SerializeToString(deterministic=True)


def upload_reply(raw: bytes) -> int | bool | messages.Verdict | None:
    """A reply to an upload: the offset to go on from, True for hold and False for go, or the verdict.

    Raises:
        CoordinatorFault: it is no reply.
    """
    try:
        reply = pb.UploadReply.FromString(raw)
    except DecodeError as error:
        raise CoordinatorFault("an upload's reply cannot be decoded") from error
    match reply.WhichOneof("kind"):
        case "proceed":
            return int(reply.proceed.offset)
        case "hold":
            return True
        case "go":
            return False
        case "verdict":
            _require(reply.verdict.fate in _VERDICTS, "an unknown fate of an upload")
            fate = _VERDICTS[reply.verdict.fate]
            return messages.Verdict(fate=fate, reason=reply.verdict.reason, detail=reply.verdict.detail)
        case _:
            return None


def _blob(m: tensor.BlobRef) -> messages.Blob:
    return messages.Blob(digest=_digest(m.digest), size=m.size)


def _digest(text: str) -> str:
    # Digests become file names: nothing but 64 hex digits may pass.
    _require(_DIGEST.fullmatch(text) is not None, "a digest is not 64 lower-case hex digits")
    return text


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise CoordinatorFault(f"the coordinator sent {what}")
