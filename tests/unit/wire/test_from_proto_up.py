"""Messages up: what a stranger may send is a record or malformed, and the coordinator says which of its words applies."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import MAX_DETAIL, ClientFault, Reason
from coordinator.rpc.serving.calls import parsed
from ssd_proto.v1 import federation_pb2 as pb
from ssd_proto.v1 import tensor_pb2 as tensor
from ssd_wire import from_proto, messages
from ssd_wire.errors import Malformed
from ssd_wire.uploads import UploadKind

DIGEST = "ab" * 32
MASKED = {
    "kind": pb.Envelope.KIND_MASKED,
    "secure_round": b"r" * 16,
    "sharers_digest": b"s" * 32,
}


def envelope(**changes: object) -> pb.Envelope:
    fields = {
        "kind": pb.Envelope.KIND_UPDATE,
        "clients": [pb.WeightedClient(client="a", training_seconds=1.5)],
        "chunk_digests": b"d" * 64,
    }
    return pb.Envelope(**(fields | changes))


def twice(name: str = "a") -> list[pb.HostedClient]:
    return [pb.HostedClient(client=name), pb.HostedClient(client=name, last_committed_round=3)]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": pb.Envelope.KIND_UNSPECIFIED},
        {"kind": 77},
        {"chunk_digests": b"d" * 33},
        {"secure_round": b"r" * 16},
        {"sharers_digest": b"s" * 32},
        MASKED | {"secure_round": b"r" * 15},
        MASKED | {"secure_round": b""},
        MASKED | {"sharers_digest": b"s" * 33},
        MASKED | {"clients": [pb.WeightedClient(client="a"), pb.WeightedClient(client="b", weight=1)]},
    ],
)
def test_an_envelope_that_cannot_be_one_is_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(ClientFault) as refused:
        parsed(from_proto.envelope, envelope(**changes))
    assert refused.value.reason is Reason.MALFORMED_MESSAGE
    assert refused.value.detail


def test_an_envelope_arrives_whole() -> None:
    assert from_proto.envelope(envelope()).kind is UploadKind.UPDATE
    got = from_proto.envelope(envelope(**MASKED))
    assert (got.masked, got.fold) == (True, False)
    assert (got.secure_round, got.sharers_digest) == (b"r" * 16, b"s" * 32)
    assert got.chunk_digests == (b"d" * 32, b"d" * 32)


def test_a_client_that_is_named_twice_is_seen_to_be() -> None:
    """Which word that earns depends on the round: the envelope's checks say it."""
    both = [pb.WeightedClient(client="a", weight=1), pb.WeightedClient(client="a", weight=2)]
    got = from_proto.envelope(envelope(kind=pb.Envelope.KIND_FOLD, clients=both))
    assert (got.names, got.weight) == (("a", "a"), 3)


@pytest.mark.parametrize(
    ("claimed", "kept"),
    [(math.nan, 0.0), (math.inf, 0.0), (-math.inf, 0.0), (-1.0, 0.0), (1e300, 1e7), (2.5, 2.5)],
)
def test_a_duration_is_fit_for_a_metric(claimed: float, kept: float) -> None:
    clients = [pb.WeightedClient(client="a", training_seconds=claimed)]
    (got,) = from_proto.envelope(envelope(clients=clients)).clients
    assert got.training_seconds == kept


def test_a_client_that_is_hosted_twice_is_a_bad_name() -> None:
    for convert, message in (
        (from_proto.hello, pb.Hello(clients=twice())),
        (from_proto.up, pb.WorkerMessage(clients_changed=pb.ClientsChanged(clients=twice()))),
    ):
        with pytest.raises(ClientFault, match="twice") as refused:
            parsed(convert, message)
        assert refused.value.reason is Reason.BAD_NAME


@pytest.mark.parametrize(
    ("said", "kept"), [("cpu", "cpu"), ("cuda", "cuda"), ("", "other"), ("x" * 99, "other")]
)
def test_a_strange_device_is_called_other(said: str, kept: str) -> None:
    hello = pb.Hello(capabilities=pb.Capabilities(device=said))
    assert from_proto.hello(hello).capabilities.device == kept


def test_a_worker_sends_no_blobs() -> None:
    said = pb.SecureAggregation(round_id=b"r" * 16, blob=tensor.BlobRef(digest=DIGEST, size=1))
    with pytest.raises(ClientFault, match="down only") as refused:
        parsed(from_proto.up, pb.WorkerMessage(secure_aggregation=said))
    assert refused.value.reason is Reason.MALFORMED_MESSAGE


def test_a_second_hello_is_out_of_order() -> None:
    with pytest.raises(ClientFault) as refused:
        parsed(from_proto.up, pb.WorkerMessage(hello=pb.Hello(clients=twice())))
    assert refused.value.reason is Reason.WRONG_ORDER


def test_an_empty_message_is_malformed() -> None:
    with pytest.raises(ClientFault) as refused:
        parsed(from_proto.up, pb.WorkerMessage())
    assert refused.value.reason is Reason.MALFORMED_MESSAGE


def test_a_round_id_nobody_knows_is_left_to_the_round() -> None:
    said = pb.SecureAggregation(round_id=b"r" * 3, message=b"m")
    got = from_proto.up(pb.WorkerMessage(secure_aggregation=said))
    assert got == messages.SecureMessage(round_id=b"r" * 3, content=b"m")


def test_what_a_refusal_quotes_is_cut_off() -> None:
    def convert(_: pb.Hello) -> None:
        raise Malformed("x" * 5000)

    with pytest.raises(ClientFault) as refused:
        parsed(convert, pb.Hello())
    assert len(refused.value.detail) == MAX_DETAIL + 3


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(raw: bytes) -> None:
    for kind, convert in (
        (pb.WorkerMessage, from_proto.up),
        (pb.Hello, from_proto.hello),
        (pb.Envelope, from_proto.envelope),
    ):
        with contextlib.suppress(ClientFault, Malformed):
            parsed(convert, from_proto.decode(kind, raw))
