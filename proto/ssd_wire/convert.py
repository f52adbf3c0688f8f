"""Between protobuf and the records of `ssd_wire.messages`; the only place that knows both."""

from __future__ import annotations

import hashlib
import math

from ssd.scaling import ScalingVector
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor_pb
from ssd_wire import messages as m
from ssd_wire.errors import Malformed
from ssd_wire.messages import Artefact, BlobRef, Claim, HeldFate, UpdateKey, UploadFate

BUILD = "ssd-federated/0.1.0"
DIGEST_BYTES = 32
ROUND_ID_BYTES = 16

_HELD = {
    HeldFate.KEEP: pb.HeldFate.FATE_KEEP,
    HeldFate.COMMITTED: pb.HeldFate.FATE_COMMITTED,
    HeldFate.DISCARDED: pb.HeldFate.FATE_DISCARDED,
}
_KINDS = (pb.Envelope.KIND_UPDATE, pb.Envelope.KIND_FOLD, pb.Envelope.KIND_MASKED)
_FATE = {
    UploadFate.ACCEPTED: pb.Verdict.FATE_ACCEPTED,
    UploadFate.REJECTED: pb.Verdict.FATE_REJECTED,
    UploadFate.DISCARDED: pb.Verdict.FATE_DISCARDED,
}


def claim_of(hello: pb.Hello) -> Claim:
    """Who the worker says it is and what it brings.

    Raises:
        Malformed: a client is named twice.
    """
    clients = hosted_clients(hello.clients)
    held = tuple(
        UpdateKey(
            client=each.client,
            round=each.round,
            base_digest=each.base_digest,
            task_digest=each.task_digest,
        )
        for each in hello.held_updates
    )
    return Claim(
        worker=hello.worker,
        instance=hello.instance,
        clients=clients,
        held=held,
        run_id=hello.run_id,
        newest=(hello.newest_version, hello.newest_digest),
    )


def hosted_clients(hosted: object) -> dict[str, int]:
    """Client -> the worker's record of its last committed round; raises Malformed on a repetition."""
    clients: dict[str, int] = {}
    for each in hosted:  # type: ignore[attr-defined]  # protobuf's repeated container has no public type
        if each.client in clients:
            raise Malformed("a client is named twice", reason="bad_name")
        clients[each.client] = each.last_committed_round
    return clients


def capabilities_of(hello: pb.Hello) -> m.Capabilities:
    """What the worker can do; the device is shown to people only."""
    device = hello.capabilities.device if hello.capabilities.device in ("cpu", "cuda") else "other"
    said = hello.capabilities
    return m.Capabilities(
        evaluates=said.evaluates, device=device, labels=said.labels, client_tests=said.client_tests
    )


def envelope_of(envelope: pb.Envelope) -> m.Envelope:
    """An upload's envelope.

    Raises:
        Malformed: malformed_message, if it cannot be one.
    """
    if envelope.kind not in _KINDS:
        raise Malformed("the envelope names no kind of upload")
    masked = envelope.kind == pb.Envelope.KIND_MASKED
    _check_masked(envelope, masked)
    digests = envelope.chunk_digests
    if len(digests) % DIGEST_BYTES:
        raise Malformed("chunk digests are 32 bytes each")
    weights = {each.client: each.weight for each in envelope.clients}
    return m.Envelope(
        run_id=envelope.run_id,
        round=envelope.round,
        attempt=envelope.attempt,
        base_digest=envelope.base_digest,
        spec_digest=envelope.spec_digest,
        task_digest=envelope.task_digest,
        fold=envelope.kind == pb.Envelope.KIND_FOLD,
        clients=weights,
        training_seconds={each.client: _seconds(each.training_seconds) for each in envelope.clients},
        body_size=envelope.body_size,
        chunk_digests=tuple(
            digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)
        ),
        digest=hashlib.sha256(envelope.SerializeToString(deterministic=True)).hexdigest(),
        duplicate_clients=len(weights) != len(envelope.clients),
        masked=masked,
        secure_round=envelope.secure_round,
        sharers_digest=envelope.sharers_digest,
    )


def _check_masked(envelope: pb.Envelope, masked: bool) -> None:
    """What only masked uploads have, they have; raises Malformed otherwise."""
    lengths = (len(envelope.secure_round), len(envelope.sharers_digest))
    if lengths != ((ROUND_ID_BYTES, DIGEST_BYTES) if masked else (0, 0)):
        raise Malformed(
            f"a masked upload names its round id ({ROUND_ID_BYTES} bytes) and its sharers ({DIGEST_BYTES}), others none",
        )
    if masked and any(each.weight for each in envelope.clients):
        raise Malformed("weights of a masked upload are inside it, not in clear")


def _seconds(claimed: float) -> float:
    """A duration fit for a metric, whatever the peer wrote."""
    return min(max(claimed, 0.0), 1e7) if math.isfinite(claimed) else 0.0


def blob_ref(blob: BlobRef) -> tensor_pb.BlobRef:
    """A blob's name on the wire."""
    return tensor_pb.BlobRef(digest=blob.digest, size=blob.size)


def version_message(offer: m.ModelVersion) -> tensor_pb.ModelVersion:
    """A version on the wire."""
    return tensor_pb.ModelVersion(
        number=offer.number,
        model_digest=offer.model_digest,
        full=blob_ref(offer.full),
        deltas=[
            tensor_pb.Delta(number=step.number, blob=blob_ref(step.blob), model_digest=step.model_digest)
            for step in offer.deltas
        ],
    )


def down(message: m.Down) -> pb.CoordinatorMessage:
    """A message to a worker."""
    match message:
        case m.Welcome():
            return pb.CoordinatorMessage(welcome=_welcome(message))
        case m.Train():
            return pb.CoordinatorMessage(train=_train(message))
        case m.Committed():
            return pb.CoordinatorMessage(
                committed=pb.Committed(
                    round=message.round,
                    version=version_message(message.version),
                    included=message.included,
                )
            )
        case m.Cancel():
            return pb.CoordinatorMessage(
                cancel=pb.Cancel(round=message.round, attempt=message.attempt, reason=message.reason)
            )
        case m.Evaluate():
            return pb.CoordinatorMessage(evaluate=_evaluate(message))
        case m.Drain():
            return pb.CoordinatorMessage(
                drain=pb.Drain(reason=message.reason, reconnect_after_seconds=message.reconnect_after)
            )
        case m.SecureMessage():
            blob = None if message.blob is None else blob_ref(message.blob)
            return pb.CoordinatorMessage(
                secure_aggregation=pb.SecureAggregation(
                    round_id=message.round_id, message=message.message, blob=blob
                )
            )
        case m.RunChanged():
            return pb.CoordinatorMessage(
                run_changed=pb.RunChanged(reason=message.reason, finished=message.finished)
            )
    raise TypeError(f"no wire form for {type(message).__name__}")


def _welcome(message: m.Welcome) -> pb.Welcome:
    return pb.Welcome(
        protocol=message.protocol,
        session=message.session,
        run_id=message.run_id,
        declaration=blob_ref(message.declaration),
        declaration_digest=message.declaration_digest,
        held_fates=[pb.HeldFate(fate=_HELD[fate]) for fate in message.held_fates],
        reinitialise=[
            pb.HostedClient(client=client, last_committed_round=record)
            for client, record in sorted(message.reinitialise.items())
        ],
        data_endpoints=message.data_endpoints,
        heartbeat_seconds=message.heartbeat_seconds,
        update_encoding=message.update_encoding,
        delta_encoding=message.delta_encoding,
        max_cohort=message.max_cohort,
        max_client_weight=message.max_client_weight,
        max_upload_bytes=message.max_upload_bytes,
        build=BUILD,
        version=version_message(message.version),
        individual_updates=message.individual_updates,
        secure_aggregation_level="off" if message.masking is None else message.masking.level,
        masking=None if message.masking is None else _masking(message.masking),
        privacy=None if message.privacy is None else pb.Privacy(**message.privacy.to_json()),
    )


def _masking(terms: m.Masking) -> pb.Masking:
    return pb.Masking(ring_bits=terms.ring_bits, clip=terms.clip, max_client_weight=terms.max_client_weight)


def _evaluate(message: m.Evaluate) -> pb.Evaluate:
    return pb.Evaluate(
        version=version_message(message.version),
        run_seed=message.run_seed,
        clients=[_client_task(client, scaling) for client, scaling in message.clients],
        artefacts=[_artefact(each) for each in message.artefacts],
        threads=message.threads,
    )


def _client_task(client: str, scaling: ScalingVector | None) -> pb.ClientTask:
    if scaling is None:
        return pb.ClientTask(client=client)
    vector = pb.ScalingVector(dimension=scaling.dimension, indices=scaling.indices, alpha=scaling.alpha)
    return pb.ClientTask(client=client, scaling=vector)


def _train(message: m.Train) -> pb.Train:
    return pb.Train(
        round=message.round,
        attempt=message.attempt,
        base=version_message(message.base),
        task_digest=message.task_digest,
        run_seed=message.run_seed,
        rounds=message.rounds,
        values=message.values,
        threads=message.threads,
        expected_clients=message.expected_clients,
        sample_digest=message.sample_digest,
        clients=[_client_task(client, scaling) for client, scaling in message.clients],
        artefacts=[_artefact(each) for each in message.artefacts],
        upload_within_seconds=message.upload_within,
        quality=message.quality,
    )


def _artefact(record: Artefact) -> tensor_pb.Artefact:
    return tensor_pb.Artefact(name=record.name, blob=blob_ref(record.blob), shape=record.shape)


def verdict_message(verdict: m.Verdict) -> pb.UploadReply:
    """An upload's fate on the wire."""
    return pb.UploadReply(
        verdict=pb.Verdict(fate=_FATE[verdict.fate], reason=verdict.reason, detail=verdict.detail)
    )
