"""From records to protobuf. `ssd_wire.from_proto` is the way back: `from_proto.x(to_proto.x(record)) == record`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from ssd_wire import messages as m
from ssd_wire import uploads as u

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

M = TypeVar("M", bound=Message)

HELLO_ENTRIES = 2048
"""Clients and held updates one message of a hello has at most, so that the longest names stay under a mebibyte."""
HELD_FATES = {
    m.HeldFate.KEEP: pb.HeldFate.FATE_KEEP,
    m.HeldFate.COMMITTED: pb.HeldFate.FATE_COMMITTED,
    m.HeldFate.DISCARDED: pb.HeldFate.FATE_DISCARDED,
}
UPLOAD_KINDS = {
    u.UploadKind.UPDATE: pb.Envelope.KIND_UPDATE,
    u.UploadKind.FOLD: pb.Envelope.KIND_FOLD,
    u.UploadKind.MASKED: pb.Envelope.KIND_MASKED,
}
UPLOAD_FATES = {
    u.UploadFate.ACCEPTED: pb.Verdict.FATE_ACCEPTED,
    u.UploadFate.REJECTED: pb.Verdict.FATE_REJECTED,
    u.UploadFate.DISCARDED: pb.Verdict.FATE_DISCARDED,
}


def _alike(record: DataclassInstance, kind: type[M]) -> M:
    """The message of a record whose fields are the message's, name by name."""
    return kind(**{field.name: getattr(record, field.name) for field in fields(record)})


# ------------------------------------------------------------------------------------------------------ words


def blob_ref(blob: m.BlobRef) -> tensor.BlobRef:
    """A blob's name."""
    return _alike(blob, tensor.BlobRef)


def model_version(version: m.ModelVersion) -> tensor.ModelVersion:
    """A version and how to get it."""
    deltas = [
        tensor.Delta(number=step.number, blob=blob_ref(step.blob), model_digest=step.model_digest)
        for step in version.deltas
    ]
    return tensor.ModelVersion(
        number=version.number,
        model_digest=version.model_digest,
        full=blob_ref(version.full),
        deltas=deltas,
    )


def artefact(record: m.Artefact) -> tensor.Artefact:
    """A shared array."""
    return tensor.Artefact(name=record.name, blob=blob_ref(record.blob), shape=record.shape)


def task_client(record: m.TaskClient) -> pb.ClientTask:
    """One client of a task."""
    scaling = record.scaling
    if scaling is None:
        return pb.ClientTask(client=record.client)
    vector = pb.ScalingVector(dimension=scaling.dimension, indices=scaling.indices, alpha=scaling.alpha)
    return pb.ClientTask(client=record.client, scaling=vector)


def hosted_clients(clients: Mapping[str, int]) -> list[pb.HostedClient]:
    """Clients and their last committed rounds, by name."""
    return _hosted(sorted(clients.items()))


def _hosted(clients: Iterable[tuple[str, int]]) -> list[pb.HostedClient]:
    return [pb.HostedClient(client=client, last_committed_round=record) for client, record in clients]


# --------------------------------------------------------------------------------------------------------- up


def hello(message: m.Hello) -> list[pb.Hello]:
    """The first message up, in as many parts as it takes; every part but the last says that more follow."""
    clients, held = sorted(message.clients.items()), message.held_updates
    count = max(1, -(-max(len(clients), len(held)) // HELLO_ENTRIES))
    parts = [_hello_head(message)] + [pb.Hello() for _ in range(count - 1)]
    for number, part in enumerate(parts):
        here = slice(number * HELLO_ENTRIES, (number + 1) * HELLO_ENTRIES)
        part.clients.extend(_hosted(clients[here]))
        part.held_updates.extend(_alike(key, pb.HeldUpdate) for key in held[here])
        part.more = number + 1 < count
    return parts


def _hello_head(message: m.Hello) -> pb.Hello:
    return pb.Hello(
        protocol_min=message.protocol[0],
        protocol_max=message.protocol[1],
        build=message.build,
        worker=message.worker,
        instance=message.instance,
        run_id=message.run_id,
        versions_held=message.versions_held,
        newest_version=message.newest[0],
        newest_digest=message.newest[1],
        capabilities=_alike(message.capabilities, pb.Capabilities),
    )


def up(message: m.Up) -> pb.WorkerMessage:
    """Any message up but the hello."""
    match message:
        case m.Heartbeat():
            return pb.WorkerMessage(heartbeat=_alike(message, pb.Heartbeat))
        case m.Progress():
            return pb.WorkerMessage(progress=_alike(message, pb.Progress))
        case m.TaskFailed():
            return pb.WorkerMessage(task_failed=_alike(message, pb.TaskFailed))
        case m.VersionHeld():
            return pb.WorkerMessage(version_held=_alike(message, pb.VersionHeld))
        case m.EvaluationDone():
            return pb.WorkerMessage(evaluation_done=evaluation_done(message))
        case m.ClientsChanged():
            changed = pb.ClientsChanged(clients=hosted_clients(message.clients))
            return pb.WorkerMessage(clients_changed=changed)
        case m.SecureMessage():
            return pb.WorkerMessage(secure_aggregation=secure_message(message))


def evaluation_done(message: m.EvaluationDone) -> pb.EvaluationDone:
    """What was measured."""
    return pb.EvaluationDone(
        version=message.version,
        values=message.values,
        error=message.error,
        clients=message.clients or (),
        on_clients=message.clients is not None,
    )


def secure_message(message: m.SecureMessage) -> pb.SecureAggregation:
    """One message of secure aggregation, or where it can be fetched."""
    blob = None if message.blob is None else blob_ref(message.blob)
    return pb.SecureAggregation(round_id=message.round_id, message=message.content, blob=blob)


# ------------------------------------------------------------------------------------------------------- down


def down(message: m.Down) -> pb.CoordinatorMessage:
    """Any message down."""
    match message:
        case m.Welcome():
            return pb.CoordinatorMessage(welcome=welcome(message))
        case m.Train():
            return pb.CoordinatorMessage(train=train(message))
        case m.Flush():
            return pb.CoordinatorMessage(flush=_alike(message, pb.Flush))
        case m.Evaluate():
            return pb.CoordinatorMessage(evaluate=evaluate(message))
        case m.Cancel():
            return pb.CoordinatorMessage(cancel=_alike(message, pb.Cancel))
        case m.Drain():
            return pb.CoordinatorMessage(drain=_alike(message, pb.Drain))
        case m.Committed():
            version = model_version(message.version)
            committed = pb.Committed(round=message.round, version=version, included=message.included)
            return pb.CoordinatorMessage(committed=committed)
        case m.RunChanged():
            return pb.CoordinatorMessage(run_changed=_alike(message, pb.RunChanged))
        case m.SecureMessage():
            return pb.CoordinatorMessage(secure_aggregation=secure_message(message))


def welcome(message: m.Welcome) -> pb.Welcome:
    """The answer to the hello."""
    return pb.Welcome(
        protocol=message.protocol,
        session=message.session,
        run_id=message.run_id,
        declaration=blob_ref(message.declaration),
        declaration_digest=message.declaration_digest,
        held_fates=[pb.HeldFate(fate=HELD_FATES[fate]) for fate in message.held_fates],
        reinitialise=hosted_clients(message.reinitialise),
        data_endpoints=message.data_endpoints,
        heartbeat_seconds=message.heartbeat_seconds,
        update_encoding=message.update_encoding,
        delta_encoding=message.delta_encoding,
        max_cohort=message.max_cohort,
        max_client_weight=message.max_client_weight,
        max_upload_bytes=message.max_upload_bytes,
        build=message.build,
        version=model_version(message.version),
        individual_updates=message.individual_updates,
        secure_aggregation_level=message.level,
        masking=None if message.masking is None else _alike(message.masking, pb.Masking),
        privacy=None if message.privacy is None else pb.Privacy(**message.privacy.to_json()),
    )


def train(message: m.Train) -> pb.Train:
    """A round's task."""
    return pb.Train(
        round=message.round,
        attempt=message.attempt,
        base=model_version(message.base),
        task_digest=message.task_digest,
        run_seed=message.run_seed,
        rounds=message.rounds,
        values=message.values,
        threads=message.threads,
        expected_clients=message.expected_clients,
        sample_digest=message.sample_digest,
        clients=[task_client(each) for each in message.clients],
        artefacts=[artefact(each) for each in message.artefacts],
        upload_within_seconds=message.upload_within_seconds,
        quality=message.quality,
    )


def evaluate(message: m.Evaluate) -> pb.Evaluate:
    """What to measure."""
    return pb.Evaluate(
        version=model_version(message.version),
        run_seed=message.run_seed,
        clients=[task_client(each) for each in message.clients],
        artefacts=[artefact(each) for each in message.artefacts],
        threads=message.threads,
    )


# ---------------------------------------------------------------------------------------------------- uploads


def envelope(message: u.Envelope) -> pb.Envelope:
    """What an upload says of itself."""
    return pb.Envelope(
        run_id=message.run_id,
        round=message.round,
        attempt=message.attempt,
        base_digest=message.base_digest,
        spec_digest=message.spec_digest,
        task_digest=message.task_digest,
        kind=UPLOAD_KINDS[message.kind],
        clients=[_alike(each, pb.WeightedClient) for each in message.clients],
        body_size=message.body_size,
        chunk_digests=b"".join(message.chunk_digests),
        secure_round=message.secure_round,
        sharers_digest=message.sharers_digest,
    )


def upload_reply(message: u.UploadReply) -> pb.UploadReply:
    """Any message down of an upload."""
    match message:
        case u.Continue():
            return pb.UploadReply(proceed=_alike(message, pb.Continue))
        case u.Hold():
            return pb.UploadReply(hold=_alike(message, pb.Hold))
        case u.Go():
            return pb.UploadReply(go=pb.Go())
        case u.Verdict():
            fate = UPLOAD_FATES[message.fate]
            verdict = pb.Verdict(fate=fate, reason=message.reason, detail=message.detail)
            return pb.UploadReply(verdict=verdict)
