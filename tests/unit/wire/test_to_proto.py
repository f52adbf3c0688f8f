"""What records look like in protobuf where that is more than a field of the same name."""

from __future__ import annotations

from ssd_proto.v1 import federation_pb2 as pb
from ssd_wire import messages, to_proto
from ssd_wire.messages import Capabilities, Hello, UpdateKey
from ssd_wire.uploads import Envelope, UploadKind, WeightedClient

DIGEST = "ab" * 32


def test_the_hello_says_what_the_session_decided() -> None:
    hello = Hello(
        worker="w",
        instance="i",
        build="v",
        run_id="r",
        clients={"b": 2, "a": 0},
        versions_held=(3, 4),
        held_updates=(UpdateKey(client="a", round=1, base_digest="x", task_digest="y"),),
        capabilities=Capabilities(
            evaluates=True, labels=True, client_tests=True, device="cuda", device_memory=7
        ),
    )
    (got,) = to_proto.hello(hello)
    assert not got.more
    assert (got.protocol_min, got.protocol_max) == (1, 1)
    assert [(c.client, c.last_committed_round) for c in got.clients] == [("a", 0), ("b", 2)]
    assert list(got.versions_held) == [3, 4]
    assert got.held_updates[0] == pb.HeldUpdate(client="a", round=1, base_digest="x", task_digest="y")
    assert got.capabilities == pb.Capabilities(
        evaluates=True, labels=True, client_tests=True, device="cuda", device_memory=7
    )


def test_a_long_hello_comes_in_parts_that_lose_nothing_and_stay_small() -> None:
    names = [f"{index:0128d}" for index in range(5000)]
    held = tuple(
        UpdateKey(client=name, round=2**63, base_digest="b" * 64, task_digest="t" * 64)
        for name in names[:4500]
    )
    got = to_proto.hello(
        Hello(
            worker="w",
            instance="i",
            run_id="r",
            clients=dict.fromkeys(names, 2**63),
            versions_held=(1,),
            held_updates=held,
        )
    )
    assert max(pb.WorkerMessage(hello=part).ByteSize() for part in got) < 1 << 20
    assert [part.more for part in got] == [True, True, False]
    assert [client.client for part in got for client in part.clients] == names
    assert [each.client for part in got for each in part.held_updates] == names[:4500]
    assert [part.worker for part in got] == ["w", "", ""]


def test_more_held_updates_than_clients_are_not_cut_off() -> None:
    held = tuple(
        UpdateKey(client="a", round=number, base_digest="b", task_digest="t") for number in range(2049)
    )
    got = to_proto.hello(Hello(worker="w", instance="i", clients={"a": 1}, held_updates=held))
    assert [len(part.held_updates) for part in got] == [2048, 1]
    assert [len(part.clients) for part in got] == [1, 0]


def test_an_answer_about_clients_is_told_from_one_about_probe_data_even_if_it_names_nobody() -> None:
    for clients, on_clients in ((None, False), ((), True), (("a",), True)):
        got = to_proto.evaluation_done(messages.EvaluationDone(version=1, clients=clients))
        assert (tuple(got.clients), got.on_clients) == (clients or (), on_clients)


def test_an_answer_of_secure_aggregation_goes_up_inline() -> None:
    said = to_proto.up(messages.SecureMessage(round_id=b"r" * 16, content=b"answer")).secure_aggregation
    assert (said.round_id, said.message, said.HasField("blob")) == (b"r" * 16, b"answer", False)


def fold() -> Envelope:
    return Envelope(
        run_id="r",
        round=1,
        attempt=2,
        base_digest="b",
        spec_digest="s",
        task_digest="t",
        kind=UploadKind.FOLD,
        clients=(
            WeightedClient(client="a", weight=3, training_seconds=0.5),
            WeightedClient(client="b", weight=4, training_seconds=0.25),
        ),
        body_size=10,
        chunk_digests=(b"x" * 32, b"y" * 32),
    )


def test_equal_envelopes_have_equal_bytes_and_every_field() -> None:
    got = to_proto.envelope(fold())
    assert got.SerializeToString(deterministic=True) == to_proto.envelope(fold()).SerializeToString(
        deterministic=True
    )
    assert got.kind == pb.Envelope.KIND_FOLD
    assert [(c.client, c.weight, c.training_seconds) for c in got.clients] == [("a", 3, 0.5), ("b", 4, 0.25)]
    assert (got.body_size, got.chunk_digests, got.attempt) == (10, b"x" * 32 + b"y" * 32, 2)


def test_a_masked_upload_says_whose_masks_it_wears_and_no_weight() -> None:
    got = to_proto.envelope(
        Envelope(
            run_id="r",
            round=1,
            attempt=2,
            base_digest=DIGEST,
            spec_digest=DIGEST,
            task_digest=DIGEST,
            kind=UploadKind.MASKED,
            clients=(WeightedClient(client="a", weight=0, training_seconds=1.5),),
            body_size=3,
            chunk_digests=(b"d" * 32,),
            secure_round=b"r" * 16,
            sharers_digest=b"s" * 32,
        )
    )
    assert got.kind == pb.Envelope.KIND_MASKED
    assert (got.secure_round, got.sharers_digest) == (b"r" * 16, b"s" * 32)
    assert [(each.client, each.weight) for each in got.clients] == [("a", 0)]
